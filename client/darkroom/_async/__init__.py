"""The client on asyncio, of which the blocking one is made."""
