#include "cli/build_view.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "cli/console.h"

namespace cli {
namespace {

constexpr size_t recent_lines = 4;  ///< Of each running step.
constexpr size_t line_bytes_max = 4096;

double seconds(int64_t from_ms, int64_t to_ms) {
  return static_cast<double>(to_ms - from_ms) / 1000;
}

std::string one_line(std::string_view text) {
  std::string line = printable(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

/// What a terminal would show of a line that draws over itself, as progress bars do.
std::string_view after_last_return(std::string_view line) {
  while (line.ends_with('\r')) line.remove_suffix(1);
  const size_t at = line.rfind('\r');
  return at == std::string_view::npos ? line : line.substr(at + 1);
}

}  // namespace

BuildView::Vertex* BuildView::find(uint32_t id) {
  const auto found = std::find_if(vertices_.begin(), vertices_.end(),
                                  [&](const Vertex& vertex) { return vertex.id == id; });
  return found == vertices_.end() ? nullptr : &*found;
}

std::string BuildView::started(uint32_t id, std::string_view name, int64_t now_ms) {
  vertices_.push_back({.id = id, .name = one_line(name), .started_ms = now_ms});
  return style_.live ? redraw(now_ms) : fmt::format("#{} {}\n", id, vertices_.back().name);
}

std::string BuildView::plain_line(const Vertex& vertex, std::string_view line,
                                  int64_t now_ms) const {
  return fmt::format("#{} {:.3f} {}\n", vertex.id, seconds(vertex.started_ms, now_ms),
                     printable_line(line));
}

std::string BuildView::output(uint32_t id, std::string_view bytes, int64_t now_ms) {
  Vertex* vertex = find(id);
  if (vertex == nullptr) return {};
  std::string out;
  vertex->partial.append(bytes);
  for (size_t end = 0; (end = vertex->partial.find('\n')) != std::string::npos ||
                       vertex->partial.size() > line_bytes_max;) {
    end = std::min({end, vertex->partial.size(), line_bytes_max});
    const bool whole = end < vertex->partial.size() && vertex->partial[end] == '\n';
    const std::string line(after_last_return(std::string_view(vertex->partial).substr(0, end)));
    vertex->partial.erase(0, end + (whole ? 1 : 0));
    if (!style_.live) out += plain_line(*vertex, line, now_ms);
    vertex->recent.push_back(one_line(line));
    if (vertex->recent.size() > recent_lines) vertex->recent.pop_front();
  }
  return style_.live ? redraw(now_ms) : out;
}

std::string BuildView::ended(uint32_t id, bool cached, bool cancelled, std::string_view problem,
                             int64_t now_ms) {
  Vertex* vertex = find(id);
  if (vertex == nullptr) return {};
  std::string out;
  if (!vertex->partial.empty() && !style_.live)
    out = plain_line(*vertex, after_last_return(vertex->partial), now_ms);
  vertex->partial.clear();
  vertex->ended_ms = now_ms;
  vertex->state = cancelled          ? State::Cancelled
                  : !problem.empty() ? State::Failed
                  : cached           ? State::Cached
                                     : State::Done;
  if (style_.live) return redraw(now_ms);
  switch (vertex->state) {
    case State::Cached: return out + fmt::format("#{} CACHED\n\n", id);
    case State::Failed:
      return out + fmt::format("#{} FAILED: {}\n\n", id,
                               printable(problem.substr(0, problem.find('\n'))));
    case State::Cancelled: return out + fmt::format("#{} CANCELLED\n\n", id);
    case State::Running:
    case State::Done: break;
  }
  return out + fmt::format("#{} DONE {:.1f}s\n\n", id, seconds(vertex->started_ms, now_ms));
}

std::string BuildView::warning(std::string_view text) {
  std::string out;
  if (drawn_ > 0) out = fmt::format("\x1b[{}A\r\x1b[J", std::exchange(drawn_, 0));
  out += printable(text);
  return out.ends_with('\n') ? out : out + "\n";
}

std::string BuildView::render(const Vertex& vertex, int64_t now_ms) const {
  constexpr std::pair<const char*, const char*> looks[] = {{"·", "\x1b[36m"},
                                                           {"✔", "\x1b[32m"},
                                                           {"✔", "\x1b[34m"},
                                                           {"✘", "\x1b[31m"},
                                                           {"-", "\x1b[33m"}};
  const auto& [symbol, colour] = looks[static_cast<size_t>(vertex.state)];
  const int64_t end_ms = vertex.state == State::Running ? now_ms : vertex.ended_ms;
  const std::string tail = vertex.state == State::Cached
                               ? "cached"
                               : fmt::format("{:.1f}s", seconds(vertex.started_ms, end_ms));
  const size_t room = style_.width > tail.size() + 6 ? style_.width - tail.size() - 6 : 1;
  return fmt::format(" {}{}{} {}  {}", style_.colour ? colour : "", symbol,
                     style_.colour ? "\x1b[0m" : "", fit(vertex.name, room), tail);
}

/// The block never grows beyond the screen: what is done leaves it first, at the top, for good.
std::string BuildView::redraw(int64_t now_ms) {
  std::string out;
  if (drawn_ > 0) out = fmt::format("\x1b[{}A", drawn_);
  const auto lines_of = [](const Vertex& vertex) {
    return 1 + (vertex.state == State::Running ? vertex.recent.size() : 0);
  };
  const size_t block_max = style_.height > 2 ? style_.height - 2 : 1;
  size_t lines = 0;
  for (const Vertex& vertex : vertices_) lines += lines_of(vertex);
  while (lines > block_max) {
    const auto settled = std::find_if(vertices_.begin(), vertices_.end(), [](const Vertex& one) {
      return one.state != State::Running;
    });
    if (settled == vertices_.end()) break;
    out += "\r\x1b[2K" + render(*settled, now_ms) + "\n";
    lines -= lines_of(*settled);
    vertices_.erase(settled);
  }
  drawn_ = 0;
  for (const Vertex& vertex : vertices_) {
    if (drawn_ >= block_max) break;
    out += "\r\x1b[2K" + render(vertex, now_ms) + "\n";
    ++drawn_;
    if (vertex.state != State::Running) continue;
    for (const std::string& line : vertex.recent) {
      if (drawn_ >= block_max) break;
      out += "\r\x1b[2K   " + fit(line, style_.width > 4 ? style_.width - 4 : 1) + "\n";
      ++drawn_;
    }
  }
  return out + "\x1b[J";
}

std::string BuildView::finish(int64_t now_ms) {
  std::string out = style_.live && !vertices_.empty() ? redraw(now_ms) : "";
  vertices_.clear();
  drawn_ = 0;
  return out;
}

}  // namespace cli
