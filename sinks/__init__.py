"""Part of Meterbridge."""
