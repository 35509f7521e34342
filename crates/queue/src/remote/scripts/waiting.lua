-- time, topic.
return {'ok', waiting(ARGV[2])}
