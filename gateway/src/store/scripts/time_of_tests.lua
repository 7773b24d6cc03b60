-- Reads the time from the last argument, in microseconds since the epoch.
local now = tonumber(table.remove(ARGV))
