#include "cli/timeline.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace cli {

std::string render_timeline(const std::string& id, int64_t origin_ns,
                            std::vector<base::Span> spans) {
  std::stable_sort(spans.begin(), spans.end(), [](const base::Span& one, const base::Span& other) {
    return one.begin_ns < other.begin_ns;
  });
  const auto since_ms = [&](int64_t at_ns) {
    return static_cast<double>(at_ns - origin_ns) / 1'000'000;
  };
  std::string text = fmt::format("timeline of {} in ms, from {} ns of boot time\n{:>9} {:>9}  {}\n",
                                 id, origin_ns, "from", "took", "where    what");
  for (const base::Span& span : spans)
    text += fmt::format("{:9.3f} {:9.3f}  {:8} {}\n", since_ms(span.begin_ns),
                        since_ms(span.end_ns) - since_ms(span.begin_ns),
                        base::escape_controls(span.where), base::escape_controls(span.what));
  return text;
}

}  // namespace cli
