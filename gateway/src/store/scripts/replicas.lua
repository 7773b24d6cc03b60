-- Lists the replicas: the time in microseconds, as text, and what each has told, by its name. KEYS: replicas by name.

return { string.format('%.0f', now), redis.call('HGETALL', KEYS[1]) }
