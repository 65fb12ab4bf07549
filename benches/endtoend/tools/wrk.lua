-- What wrk counted, as one line of JSON.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "bytes": %d, "seconds": %.6f, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
