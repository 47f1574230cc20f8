"""Why a message got its label, and what counts over many messages."""
