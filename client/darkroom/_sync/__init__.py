"""The blocking client, made from `darkroom/_async/` by `client/make_sync.py`: not to be changed here."""
