"""What `detect` asks: the machine's own sensors, and hosts that a person named, politely.

One question at a time per host, short waits, nothing written, nobody logged in. No other address
is ever touched.
"""
