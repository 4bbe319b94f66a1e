"""How the driver reaches its workers: `protocol` says what passes between them, `local` runs a worker in this process."""
