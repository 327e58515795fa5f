-- Removes alarms that still have the version that was seen.
--
-- KEYS  for each alarm its shard's ":alarms" and ":alarm-records"
-- ARGV  for each alarm: name, version
for i = 1, #KEYS, 2 do
    local name, version = ARGV[i], ARGV[i + 1]
    local record = redis.call('HGET', KEYS[i + 1], name)
    if record and string.sub(record, 1, 16) == version then
        redis.call('ZREM', KEYS[i], name)
        redis.call('HDEL', KEYS[i + 1], name)
    end
end
return {}
