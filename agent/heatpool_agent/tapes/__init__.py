"""What passed between drivers and devices, kept in a folder and played back.

`lines` is the form on disk, `redaction` what never gets there, `keep` writes and `play` reads. A
room of its own below the drivers, since the sensor kind `replay` plays recordings too.
"""
