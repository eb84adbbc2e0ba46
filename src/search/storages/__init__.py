"""Storages of studies (a journal file or a database), and leases that say which process runs which trial."""
