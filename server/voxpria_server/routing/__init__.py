"""From the account's trunks and numbers to what the edges hold: the snapshot, its version, and who has it."""
