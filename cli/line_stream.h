#pragma once
/// An answer of lines, read on a thread of its own while the command does something else, too.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "cli/http_client.h"

namespace cli {

/// Cuts bytes into lines as they come. A line longer than limits::cli_line_bytes_max is an error.
class LineSplitter {
 public:
  using Sink = std::function<base::Result<>(std::string line)>;
  base::Result<> feed(std::string_view bytes, const Sink& sink);

 private:
  std::string partial_;
};

/// Destroying it hangs up.
class LineStream {
 public:
  /// Asks at once. Must be made after the signals that the command waits for have been blocked.
  static base::Result<std::unique_ptr<LineStream>> open(const HttpClient& client, Request request);
  ~LineStream();
  LineStream(const LineStream&) = delete;
  LineStream& operator=(const LineStream&) = delete;

  /// Readable while there is something to take.
  int event() const { return event_.get(); }
  /// The lines that have come since the last call.
  std::vector<std::string> take();
  /// How the answer ended; nullopt while it goes on or lines wait to be taken.
  std::optional<base::Result<>> outcome();

 private:
  LineStream(HttpClient client, Request request, base::UniqueFd event, base::UniqueFd cancel);
  void read();
  base::Result<> add(std::string line);

  const HttpClient client_;
  Request request_;
  const base::UniqueFd event_;
  const base::UniqueFd cancel_;
  std::mutex mutex_;
  std::condition_variable taken_;
  std::deque<std::string> lines_;
  size_t bytes_ = 0;
  bool cancelled_ = false;
  std::optional<base::Result<>> outcome_;
  std::thread thread_;
};

}  // namespace cli
