-- Reads the store's clock, in microseconds since the epoch. A count of nanoseconds would not be exact as a number of
-- Lua, which is a double; one of microseconds is until the year 2255.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
