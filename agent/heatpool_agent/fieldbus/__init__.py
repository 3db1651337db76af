"""What sensors and actuators share of a bus: its one line, and the maps of its devices."""
