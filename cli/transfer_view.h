#pragma once
/// How a pull or push is going: on a terminal one line that is drawn again in place, elsewhere at
/// most a line a second. Renders to text; whoever owns stderr writes it. Thread-safe.

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace cli {

enum class TransferStyle { None, Plain, Ansi, Colour };

/// `auto` is `ansi` on a terminal, else `plain`.
TransferStyle transfer_style(std::string_view wanted, bool live);

struct TransferCounts {
  uint64_t blobs_done = 0;
  uint64_t blobs_total = 0;
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
};

class TransferView {
 public:
  TransferView(TransferStyle style, std::string what, size_t width, int64_t now_ms)
      : style_(style), what_(std::move(what)), width_(width), begun_ms_(now_ms) {}

  /// A line of api/wire.h with `"type": "progress"`.
  void take(const nlohmann::json& line);
  /// What to write now; empty if nothing is due.
  std::string draw(int64_t now_ms);
  /// Clears what is on the screen.
  std::string finish();

 private:
  std::string line(int64_t now_ms, size_t width) const;

  const TransferStyle style_;
  const std::string what_;
  const size_t width_;
  const int64_t begun_ms_;
  std::mutex mutex_;
  TransferCounts counts_;
  bool changed_ = false;
  bool drawn_ = false;
  int64_t last_drawn_ms_ = -1'000'000;
};

/// `21.7` of 21,700,000 bytes and so on; the unit is the one of `of`.
std::string megabytes(uint64_t bytes, uint64_t of);
/// ` KB`, ` MB`, ` GB`: powers of 1000, as registries count.
std::string_view unit_of(uint64_t bytes);

}  // namespace cli
