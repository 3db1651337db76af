// Small tools for the document: elements are made once and only changed texts are written.

/** An element with a class and children (texts or elements). */
export function el(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** Writes a text only if it differs, so that selections and screen readers stay calm. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or removes an attribute only if it differs. */
export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An icon out of the sprite. */
export function icon(name) {
  const node = svg("svg", { class: "icon", "aria-hidden": "true", width: "26", height: "26" });
  node.append(svg("use", { href: `${document.body.dataset.icons}#${name}` }));
  return node;
}

/**
 * Keeps the children of `parent` in step with `items`: `make(item)` once for a new key,
 * `renew(made, item)` each time; what has no item any more is taken out.
 */
export function inStep(parent, items, { key, make, renew, known }) {
  const wanted = new Set(items.map(key));
  for (const [name, made] of known) {
    if (!wanted.has(name)) {
      made.node.remove();
      known.delete(name);
    }
  }
  items.forEach((item, index) => {
    let made = known.get(key(item));
    if (!made) known.set(key(item), (made = make(item)));
    if (parent.children[index] !== made.node) parent.insertBefore(made.node, parent.children[index] ?? null);
    renew(made, item);
  });
}

/** Rows of a definition list. */
export function facts(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([name, value, note = ""], index) => {
    let row = list.children[index];
    if (!row) {
      row = el("div", "", el("dt"), el("dd", "", el("span", "v"), el("span", "why")));
      list.append(row);
    }
    say(row.children[0], name);
    say(row.children[1].children[0], value);
    say(row.children[1].children[1], note);
  });
}
