"""Make leases of locks in a bucket last seconds instead of a minute, so that a killed job is replaced soon."""

from shards.storage import object_store

object_store.LEASE_SECONDS, object_store._RENEW_SECONDS = 6.0, 1.0
