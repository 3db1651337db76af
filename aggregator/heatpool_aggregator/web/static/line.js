// The line to the aggregator: server-sent events, and the knowledge of whether it is alive.

const SILENT_MS = 2500; // the aggregator speaks at least once a second
const AGAIN_MS = 2000;
const LOOK_MS = 250;

/**
 * Listens for ever. `onState(state)` for each state, `onPulse(line)` a few times a second with
 * {isLive, everSeen, offsetMs}; offsetMs is the aggregator's clock minus ours.
 */
export function listen(url, { onState, onPulse }) {
  const line = { isLive: false, everSeen: false, offsetMs: 0 };
  let heardMs = -Infinity;
  let events = null;

  const heard = (atNs) => {
    heardMs = performance.now();
    line.offsetMs = atNs / 1e6 - Date.now();
    line.isLive = true;
  };

  const open = () => {
    events = new EventSource(url);
    events.onmessage = (event) => {
      const state = JSON.parse(event.data);
      line.everSeen = true;
      heard(state.at_ns);
      onState(state);
      onPulse(line);
    };
    events.addEventListener("alive", (event) => heard(JSON.parse(event.data).at_ns));
    events.onerror = () => {
      heardMs = -Infinity;
      // After an HTTP error the browser gives up for good; we do not.
      if (events.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
    };
  };

  open();
  setInterval(() => {
    line.isLive = performance.now() - heardMs < SILENT_MS;
    onPulse(line);
  }, LOOK_MS);
}
