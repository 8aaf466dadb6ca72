#pragma once
/// The log of a daemon: one line per event, to a file or to stderr.
///
/// Libraries return errors and log at debug at most; the daemons' top functions log above that.

#include <string>

#include <spdlog/spdlog.h>

namespace base {

/// Sends spdlog's default logger to `path`, or to stderr if it is empty. `debug` shows all levels.
/// The file is bounded: full, it becomes `NAME.1.log`, and the oldest one goes.
void start_log(const std::string& program, const std::string& path, bool debug);

}  // namespace base
