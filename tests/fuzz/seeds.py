"""Small inputs of our own from which each fuzzer begins, by decoder."""

import json
import ssl
from typing import Any

from fuzz.laws import CUT

from heatpool import codec
from heatpool.v1 import command_pb2, control_pb2, telemetry_pb2
from heatpool_agent.core.mbus_frames import long_frame, reset_frame

_HEADER = bytes.fromhex("78 56 34 12 2d 2c 01 04 07 00 00 00")
_RECORDS = bytes.fromhex(
    "04 06 39 30 00 00 0c 14 21 43 65 00 02 5a 2b 02 02 5e 90 01 04 2d 64 00 00 00"
    "05 3b cd cc 0c 40 04 6d 1e 0a b1 16 42 6c 9f 15 84 40 06 01 00 00 00 0f 01 02"
)
_BODY = b"\x72" + _HEADER + _RECORDS
_FIXED = b"\x73" + bytes.fromhex("78 56 34 12 0a 00 e9 7e 01 00 00 00 35 01 00 00")
_FRAMES = tuple(long_frame(0x08, 5, body) for body in (_BODY, _FIXED, b"\x70\x08"))

_MAP = b"""name = "x"
sensor_side = "cold"
[absent]
int16 = [32768]
[[point]]
quantity = "temperature"
pipe = "hot"
function = 4
address = 0
type = "int16"
scale = 0.1
unit = "degC"
u = 0.3
[[point]]
quantity = "energy"
function = 3
address = 10
type = "uint32"
word_order = "CDAB"
unit = "kWh"
kind = "counter"
digits = 8
[[point]]
quantity = "meter_number"
function = 3
address = 20
type = "uint16"
text_words = 4
"""
_POINTS = b"""[[point]]
topic = "a/b"
quantity = "energy"
path = "x[0].y"
time = "t"
unit = "MWh"
kind = "counter"
decimals = 3
digits = 9
[[point]]
topic = "a/c"
quantity = "runs"
kind = "state"
states = {on = 1.0, off = 0}
[[point]]
topic = "a/d"
quantity = "power"
unit = "kW"
text = true
decimal = ","
scale = 1e3
offset = -0.5
u = 2.0
absent = [-999.0]
"""
_SETTINGS = b"""[site]
id = "a"
[sampling]
period_s = 1
report_period_s = 10.0
[http]
listen = "[::1]:9188"
[aggregator]
url = "http://127.0.0.1:50051"
[[loop]]
id = "rack"
fluid = "water"
[[sensor]]
id = "m"
kind = "modbus"
url = "tcp://127.0.0.1:502"
map = "generic-cdu"
loop = "rack"
[[sensor]]
id = "h"
kind = "mbus"
url = "serial:/dev/ttyUSB0?baud=2400"
secondary = "12345678"
[[sensor]]
id = "r"
kind = "redfish"
url = "https://127.0.0.1"
[[sensor]]
id = "q"
kind = "mqtt"
url = "mqtt://127.0.0.1:1883"
[[sensor.point]]
topic = "a"
quantity = "power"
unit = "W"
[[sensor]]
id = "i"
kind = "ipmi"
"""


def _chassis() -> bytes:
    path = "/redfish/v1/Chassis/1"
    sensor = {"@odata.type": "#Sensor.v1_5_0.Sensor", "ReadingType": "Power", "Reading": 310,
              "ReadingUnits": "W", "PhysicalContext": "Chassis", "SensingInterval": "PT5S",
              "ReadingAccuracy": 1}  # fmt: skip
    told = {"Reading": 300.5, "DataSourceUri": f"{path}/Sensors/P"}
    metrics = {"@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
               "PowerWatts": told, "EnergykWh": {"Reading": 65.51}}  # fmt: skip
    unit = {"@odata.type": "#CoolantConnector.v1_1_0.CoolantConnector",
            "FlowLitersPerMinute": {"Reading": 60}, "HeatRemovedkW": {"Reading": 41},
            "SupplyTemperatureCelsius": {"Reading": 30},
            "ReturnTemperatureCelsius": {"Reading": 40}}  # fmt: skip
    supply = {"@odata.type": "#PowerSupply.v1_5_0.PowerSupply", "Name": "PSU \ud800",
              "PowerCapacityWatts": 800, "InputPowerWatts": 300}  # fmt: skip
    body = {"@odata.id": path, "Name": "x", f"{path}/E": metrics, f"{path}/Sensors/P": sensor,
            f"{path}/PowerSubsystem/PowerSupplies/1": supply,
            "/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/1": unit,
            "PowerControl": [{"PowerConsumedWatts": "290"}]}  # fmt: skip
    return json.dumps(body).encode()


_SMI = b"""<?xml version="1.0" ?><nvidia_smi_log><driver_version>550</driver_version>
<gpu id="00000000:3B:00.0"><product_name>X</product_name><uuid>GPU-1</uuid>
<gpu_power_readings><average_power_draw>67.03 W</average_power_draw>
<instant_power_draw>N/A</instant_power_draw><max_power_limit>400.00 W</max_power_limit>
</gpu_power_readings></gpu></nvidia_smi_log>"""

_SDR = b"PS1 Input Power  | 110 Watts         | ok\nPS2 | 71h | ok | 10.2 | 90.5 Watts, present\n"
_DCMI = b"""
    Instantaneous power reading:                   167 Watts
    Minimum during sampling period:                  3 Watts
    Power reading state is:                   activated
"""
_ANSWER = bytes.fromhex("00 dc a7 00 03 00 2d 01 9c 00 11 22 33 44 e8 03 00 00 40")

_KERNEL = CUT.join(
    (b"package-0\n", b"240422366267\n", b"262143328850\n", b"95000000\n", b"core\n", b"0,28-29\n",
     b"14\n", b"event=0x02\n", b"2.3283064365386962890625e-10\n", b"amdgpu\n", b"118000000\n",
     b"PPT\n", b"12000\n", b"5000\n", b"cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n",
     b"processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: 1800.000\n", b"11111111-2222\n")
)  # fmt: skip


def _recording() -> bytes:
    at = 1_750_000_000_000_000_000
    moment = {"event_ns": at, "boot_ns": 5}
    manifest = {
        "schema": "heatpool.recording/1", "heatpool": "0", "begun_ns": at, "roots": {},
        "sampling": {"period_s": 1.0, "report_period_s": 10.0},
        "loop": [{"id": "rack"}],
        "sensor": [{"id": "s", "kind": "ipmi", "via": "device", "loop": "rack"}],
    }  # fmt: skip
    lines = [
        {"line": "begin", "do": "read", **moment},
        {"line": "exchange", "request": "dcmi power", "answer_hex": _ANSWER.hex(), **moment},
        {"line": "end", "count": 1, "event_ns": at + 10**9, "boot_ns": 10**9 + 5},
        {"line": "begin", "do": "read", **moment},
        {"line": "end", **moment, "error": {"kind": "os", "errno": 5, "text": "I/O"}},
    ]
    return json.dumps(manifest).encode() + CUT + b"\n".join(json.dumps(x).encode() for x in lines)


# A request on a key of P-256 that nobody has any more, for site e1.
_CSR = bytes.fromhex(
    "3082010a3081b1020100300d310b300906035504030c0265313059301306072a8648ce3d020106082a8648ce"
    "3d03010703420004ebdf89300235567b090d6e24ff8a836f3f3fd992a136439e2a84a9c90f7ae1176757e344"
    "035978f92376ff9c348b2f32f359d50c9a3ea4faa5ca2ea125b12eeba042304006092a864886f70d01090e31"
    "33303130240603551d11041d301b86197370696666653a2f2f68656174706f6f6c2f736974652f6531300906"
    "03551d1304023000300a06082a8648ce3d04030203480030450220234b077b9e53ecb2b83acacbbc4c2c6f85"
    "f296276a9de3bcbd6798eb7c6304660221009c77e1f8a0e9e47a17e1b6345c6f0696c7e738443cb989bdcd19"
    "b42a6e8e8dba"
)
# The certificate of a site, e1, by a CA that nobody has any more.
_CERTIFICATE = bytes.fromhex(
    "308201433081eaa0030201020214123f0150519694452592f876486d2f0a4e5afc82300a06082a8648ce3d"
    "040302300c310a300806035504030c0163301e170d3236303130313030303030305a170d33353132333030"
    "30303030305a30003059301306072a8648ce3d020106082a8648ce3d03010703420004aaebb282e2f79f9b"
    "8ae6aed73b6590cb261e00a0b5b7e8c93c1133b70baab96c87fd5c239be93cf107a7410f27ed8728a34dcf"
    "8a8e571d291def55d25c6f9448a3363034300c0603551d130101ff0402300030240603551d11041d301b86"
    "197370696666653a2f2f68656174706f6f6c2f736974652f6531300a06082a8648ce3d0403020348003045"
    "02204f8269cdeec9d0e8eb708fc3b7a3cb81d069cd648f4f9a9d6487acf2fc3242ca022100f0a9980c54ec"
    "0f05fab2080ece0d2b97c59453070f022f454fbe6ebb0bf81c9a"
)
_PLACE = b'{"schema":"heatpool.place/1","site_id":"e1","grpc":"h:1","renew_after_ns":1}'
_JOIN = json.dumps({"token": "abc123.0123456789abcdef", "csr_pem": "x", "site_id": "e1"}).encode()


def _said(**what: Any) -> bytes:
    return telemetry_pb2.TelemetryServiceStreamRequest(**what).SerializeToString()


_HELLO = _said(
    hello=telemetry_pb2.Hello(
        wire_version=1,
        agent_version="1",
        sites=[
            telemetry_pb2.HelloSite(
                site_id="e1",
                spools=[
                    telemetry_pb2.SpoolState(
                        kind=telemetry_pb2.SPOOL_KIND_TELEMETRY,
                        boot_id="b",
                        first_seq=1,
                        next_seq=2,
                    )
                ],
                schemas=[
                    telemetry_pb2.Schema(
                        schema_id=1,
                        boot_id="b",
                        channels=[
                            telemetry_pb2.Channel(loop_id="l", quantity="hot_c", exponent=-2)
                        ],
                    )
                ],
            )
        ],
    )
)
_BATCH = telemetry_pb2.TelemetryBatch(
    seq=1,
    schema_id=1,
    start_ns=1,
    step_ns=10**9,
    n_rows=3,
    cells=[1, -2, 300],
    codec=telemetry_pb2.PAYLOAD_CODEC_NONE,
    sent_ns=5,
)
_ROW = telemetry_pb2.RegisterRow(
    metering_point_id="p",
    meter_id="m",
    event_ns=1,
    raw=5,
    reason=telemetry_pb2.REGISTER_REASON_PERIODIC,
)
_TELEMETRY = _said(telemetry=_BATCH)
_UPWARDS = (
    _HELLO,
    _TELEMETRY,
    _said(registers=telemetry_pb2.RegisterBatch(seq=1, rows=[_ROW])),
    _said(
        gap=telemetry_pb2.Gap(
            boot_id="b", first_seq=1, last_seq=2, reason=telemetry_pb2.GAP_REASON_DROPPED
        )
    ),
)
_ORDER = command_pb2.SetSetpointRequest(site_id="e1", heat_rate_w=1.0, lease_s=60.0, reason="r")
_REPORT = control_pb2.ControlServiceStreamRequest(
    state=control_pb2.SetpointStateReport(
        site_id="e1", setpoint_seq=1, state=control_pb2.SETPOINT_STATE_APPLIED, detail="d"
    )
)
_COLUMNS = codec.columns_to_bytes(
    codec.Columns(
        schema_id=1, start_ns=1, step_ns=10**9, n_rows=2, cells=(1, -2), dt_ns=(), valid_bits=b""
    )
)


_HELLO_REPLY = telemetry_pb2.TelemetryServiceStreamResponse(
    hello_reply=telemetry_pb2.HelloReply(
        durable=[telemetry_pb2.DurableRange(boot_id="b", first_seq=1, last_seq=9)],
        limits=telemetry_pb2.Limits(batch_rows_count=60, backlog_bytes_s=1e4),
        retry_after_s=3.0,
    )
)
_ACK = telemetry_pb2.TelemetryServiceStreamResponse(
    ack=telemetry_pb2.Ack(
        spools=[telemetry_pb2.AckedSpool(boot_id="b", received_seq=3, durable_seq=2)],
        refused=[telemetry_pb2.RefusedFrame(boot_id="b", seq=4, detail="x")],
    )
)
_WISHES = (
    control_pb2.ControlServiceStreamResponse(
        setpoint=control_pb2.Setpoint(
            setpoint_id="s", setpoint_seq=7, plan_id="p", site_id="e1", loop_id="rack",
            heat_rate_w=30_000.0, heat_rate_upper_w=50_000.0, hot_c=60.0, lease_s=60.0,
            valid_from_ns=1_750_000_000_000_000_000, ramp_w_s=100.0, reason="r",
        )
    ),
    control_pb2.ControlServiceStreamResponse(
        heartbeat=control_pb2.Heartbeat(plan_id="p", server_ns=1_750_000_000_000_000_000)
    ),
)  # fmt: skip

SEEDS: dict[str, tuple[bytes, ...]] = {
    "mbus_telegram": _FRAMES,
    "mbus_body": (_BODY, _FIXED),
    "mbus_stream": (b"".join((*_FRAMES, b"\xe5", reset_frame(1))), _FRAMES[0].hex(" ").encode()),
    "modbus_words": (bytes(range(64)), b"\x03\xff\xff\x7f\xff\x80\x00"),
    "modbus_map": (_MAP,),
    "redfish_json": (_chassis(),),
    "mqtt_payload": (b'{"a": [{"b": 12.345}], "b": "1,5", "t": "2025-06-15T15:06:40Z"}', b"1.5"),
    "mqtt_points": (_POINTS,),
    "ipmi_words": (_ANSWER, _DCMI, _SDR),
    "smi_text": (_SMI,),
    "kernel_files": (_KERNEL,),
    "recording": (_recording(),),
    "settings_text": (_SETTINGS,),
    "signing_request": (_CSR,),
    "join_body": (_JOIN,),
    "site_certificate": (_CERTIFICATE, ssl.DER_cert_to_PEM_cert(_CERTIFICATE).encode()),
    "identity_files": (
        CUT.join((ssl.DER_cert_to_PEM_cert(_CERTIFICATE).encode(), b"x", _PLACE)),
        b'{"site.pem":"k","ca.pem":"c","place.json":"{}"}',
    ),
    "renewed_certificate": (b"\x0a\x01c\x12\x01a\x18\x01",),
    "stream_message": _UPWARDS,
    "bulk_batches": (_TELEMETRY, CUT.join(_UPWARDS)),
    "zlib_payload": (bytes(60), bytes(range(180))),
    "order_requests": (_ORDER.SerializeToString(), _REPORT.SerializeToString()),
    "spooled_frames": (_COLUMNS, b"[]"),
    "aggregator_words": (
        _HELLO_REPLY.SerializeToString(),
        _ACK.SerializeToString(),
        *(one.SerializeToString() for one in _WISHES),
    ),
    "kept_orders": (
        b'{"asked_ns":1750000000000000000,"until_ns":1750000060000000000,"reason":"x"}',
        b'{"setpoint_seq":7}',
    ),
}
