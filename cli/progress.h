#pragma once
/// What a plan's steps look like while they run: on a terminal a block that is drawn again in
/// place, elsewhere a line per event. Renders to text; whoever owns stderr writes it.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

enum class StepState { Running, Done, Failed, Skipped };

struct ProgressStyle {
  bool live = false;    ///< A terminal: redraw in place.
  bool colour = false;  ///< Never where NO_COLOR is set.
  size_t width = 80;
  size_t height = 24;
};

class ProgressView {
 public:
  explicit ProgressView(ProgressStyle style) : style_(style) {}

  /// What to write to the terminal or the log for this event. `now_ms` may start anywhere.
  std::string update(uint32_t step, StepState state, std::string_view text, int64_t now_ms);
  /// Another size of the terminal; the next update redraws with it.
  void resize(size_t width, size_t height);
  /// Takes the block off the screen, so that something else can be written; `show` puts it back
  /// below that.
  std::string hide();
  std::string show();
  /// Leaves the block as it stands; what follows is written below it.
  std::string finish();

 private:
  struct Line {
    uint32_t step = 0;
    StepState state = StepState::Running;
    std::string text;
    std::string problem;
    int64_t started_ms = 0;
    int64_t ended_ms = 0;
  };

  Line& line_of(uint32_t step, std::string_view text, int64_t now_ms);
  std::string render(const Line& line) const;
  std::string plain(const Line& line) const;
  std::string redraw();

  ProgressStyle style_;
  std::vector<Line> lines_;
  size_t drawn_ = 0;  ///< Lines of the block on the screen.
};

/// `text` cut to `width` characters, the last one an ellipsis if something was cut.
std::string fit(std::string_view text, size_t width);

}  // namespace cli
