"""The validating webhook: an aiohttp service that decides with `berth.core`."""
