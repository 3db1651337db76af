"""Through what the agent meets the world: sensors, actuators, uplink, spool, clock."""

from heatpool_agent.core.line import Durable as Durable
from heatpool_agent.core.line import Identity as Identity
from heatpool_agent.core.line import Lane as Lane
from heatpool_agent.core.line import LineBusy as LineBusy
from heatpool_agent.core.line import LineLimits as LineLimits
from heatpool_agent.core.line import LineRefused as LineRefused
from heatpool_agent.core.line import Resend as Resend
from heatpool_agent.core.line import Sent as Sent
from heatpool_agent.core.safety import Command as Command
from heatpool_agent.core.spooled import QueueStat as QueueStat
from heatpool_agent.core.spooled import Seq as Seq
from heatpool_agent.core.spooled import SpoolFrame as SpoolFrame
from heatpool_agent.core.spooled import SpoolLoss as SpoolLoss
from heatpool_agent.core.spooled import SpoolMark as SpoolMark
from heatpool_agent.ports.actuator import Actuator as Actuator
from heatpool_agent.ports.clock import Clock as Clock
from heatpool_agent.ports.sensor import Sensor as Sensor
from heatpool_agent.ports.sensor import SensorModule as SensorModule
from heatpool_agent.ports.shelf import Shelf as Shelf
from heatpool_agent.ports.spool import Spool as Spool
from heatpool_agent.ports.tape import LIVE as LIVE
from heatpool_agent.ports.tape import Live as Live
from heatpool_agent.ports.tape import Roots as Roots
from heatpool_agent.ports.tape import Tape as Tape
from heatpool_agent.ports.uplink import Speaker as Speaker
from heatpool_agent.ports.uplink import Uplink as Uplink
