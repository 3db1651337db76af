"""What `doctor` looks at: each family gathers facts, and pure functions turn them into verdicts.

Nothing here is loaded by the daemon. A check leaves no file, wakes no card, writes to no device.
"""
