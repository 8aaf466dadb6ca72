#pragma once
/// What a build looks like while it runs: on a terminal a block that is drawn again in place, with
/// the last lines of what is being done; elsewhere every line under its step's number. Renders to
/// text; whoever owns stderr writes it.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cli/progress.h"

namespace cli {

class BuildView {
 public:
  explicit BuildView(ProgressStyle style) : style_(style) {}

  std::string started(uint32_t id, std::string_view name, int64_t now_ms);
  std::string output(uint32_t id, std::string_view bytes, int64_t now_ms);
  /// `problem` empty: it went well.
  std::string ended(uint32_t id, bool cached, bool cancelled, std::string_view problem,
                    int64_t now_ms);
  std::string warning(std::string_view text);
  /// Leaves the block as it stands.
  std::string finish(int64_t now_ms);

 private:
  enum class State { Running, Done, Cached, Failed, Cancelled };
  struct Vertex {
    uint32_t id = 0;
    std::string name;
    State state = State::Running;
    int64_t started_ms = 0;
    int64_t ended_ms = 0;
    std::string partial;             ///< A line without its end.
    std::deque<std::string> recent;  ///< The last lines, for the block.
  };
  Vertex* find(uint32_t id);
  std::string render(const Vertex& vertex, int64_t now_ms) const;
  std::string redraw(int64_t now_ms);
  std::string plain_line(const Vertex& vertex, std::string_view line, int64_t now_ms) const;

  ProgressStyle style_;
  std::vector<Vertex> vertices_;
  size_t drawn_ = 0;
};

}  // namespace cli
