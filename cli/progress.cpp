#include "cli/progress.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"

namespace cli {
namespace {

struct Look {
  std::string_view symbol;
  std::string_view colour;
  std::string_view word;
};

Look look_of(StepState state) {
  switch (state) {
    case StepState::Running: return {"·", "\x1b[36m", "started"};
    case StepState::Done: return {"✔", "\x1b[32m", "done"};
    case StepState::Failed: return {"✘", "\x1b[31m", "failed"};
    case StepState::Skipped: return {"-", "\x1b[33m", "skipped"};
  }
  return {"?", "", ""};
}

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

}  // namespace

std::string fit(std::string_view text, size_t width) {
  if (characters(text) <= width) return std::string(text);
  if (width == 0) return {};
  size_t end = 0;
  for (size_t count = 0; end < text.size(); ++end)
    if (starts_character(text[end]) && ++count == width) break;
  return std::string(text.substr(0, end)) + "…";
}

ProgressView::Line& ProgressView::line_of(uint32_t step, std::string_view text, int64_t now_ms) {
  const auto found = std::find_if(lines_.begin(), lines_.end(),
                                  [&](const Line& line) { return line.step == step; });
  if (found != lines_.end()) return *found;
  lines_.push_back({.step = step,
                    .text = base::escape_controls(text),
                    .started_ms = now_ms,
                    .ended_ms = now_ms});
  return lines_.back();
}

std::string ProgressView::update(uint32_t step, StepState state, std::string_view text,
                                 int64_t now_ms) {
  Line& line = line_of(step, text, now_ms);
  line.state = state;
  line.ended_ms = now_ms;
  if (state == StepState::Failed || state == StepState::Skipped)
    line.problem = base::escape_controls(text);
  return style_.live ? redraw() : plain(line) + "\n";
}

void ProgressView::resize(size_t width, size_t height) {
  style_.width = width;
  style_.height = height;
}

std::string ProgressView::plain(const Line& line) const {
  const Look look = look_of(line.state);
  std::string text = fmt::format("{}: {}", line.text, look.word);
  if (line.state == StepState::Done)
    text += fmt::format(" ({:.1f}s)", static_cast<double>(line.ended_ms - line.started_ms) / 1000);
  if (!line.problem.empty() && line.problem != line.text) text += ": " + line.problem;
  return text;
}

std::string ProgressView::render(const Line& line) const {
  const Look look = look_of(line.state);
  std::string text = line.text;
  if (!line.problem.empty() && line.problem != line.text) text += ": " + line.problem;
  if (line.state == StepState::Done)
    text += fmt::format("  {:.1f}s", static_cast<double>(line.ended_ms - line.started_ms) / 1000);
  const size_t room = style_.width > 4 ? style_.width - 4 : 1;
  std::string drawn = " ";
  if (style_.colour) drawn += look.colour;
  drawn += look.symbol;
  if (style_.colour) drawn += "\x1b[0m";
  return drawn + " " + fit(text, room);
}

/// The block never grows beyond the screen, since what has scrolled away cannot be drawn again:
/// lines that are done leave it first, at the top, and stay above it for good.
std::string ProgressView::redraw() {
  std::string out;
  if (drawn_ > 0) out += fmt::format("\x1b[{}A", drawn_);
  const size_t block_max = style_.height > 2 ? style_.height - 2 : 1;
  while (lines_.size() > block_max) {
    auto settled = std::find_if(lines_.begin(), lines_.end(),
                                [](const Line& line) { return line.state != StepState::Running; });
    if (settled == lines_.end()) break;
    out += "\r\x1b[2K" + render(*settled) + "\n";
    lines_.erase(settled);
  }
  const size_t shown = std::min(lines_.size(), block_max);
  for (size_t i = lines_.size() - shown; i < lines_.size(); ++i)
    out += "\r\x1b[2K" + render(lines_[i]) + "\n";
  drawn_ = shown;
  return out + "\x1b[J";
}

std::string ProgressView::hide() {
  if (drawn_ == 0) return {};
  return fmt::format("\x1b[{}A\r\x1b[J", std::exchange(drawn_, 0));
}

std::string ProgressView::show() {
  return style_.live && !lines_.empty() ? redraw() : std::string();
}

std::string ProgressView::finish() {
  lines_.clear();
  drawn_ = 0;
  return {};
}

}  // namespace cli
