#include "runtime/log/last_words.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"

namespace runtime {
namespace {

constexpr size_t shown_bytes = 600;
constexpr std::array<std::string_view, 4> complaints = {"Oops: ", "BUG: ", "Kernel panic",
                                                        "Out of memory"};

bool complains(const std::string& line) {
  return std::any_of(complaints.begin(), complaints.end(),
                     [&](std::string_view words) { return line.find(words) != std::string::npos; });
}

}  // namespace

std::string last_words(std::string_view console_end) {
  std::vector<std::string> lines;
  for (const std::string& line : base::split(std::string(console_end), '\n')) {
    std::string clean = base::escape_controls(line);
    if (clean.ends_with("\\x0d")) clean.resize(clean.size() - 4);
    if (!clean.empty()) lines.push_back(std::move(clean));
  }
  if (lines.empty()) return "it printed nothing";
  const auto first = std::find_if(lines.begin(), lines.end(), complains);
  const std::string words = base::join(
      std::vector<std::string>(first == lines.end() ? lines.begin() : first, lines.end()), " | ");
  if (words.size() <= shown_bytes) return words;
  return first == lines.end() ? words.substr(words.size() - shown_bytes)
                              : words.substr(0, shown_bytes);
}

}  // namespace runtime
