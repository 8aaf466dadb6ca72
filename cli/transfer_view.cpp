#include "cli/transfer_view.h"

#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/progress.h"

namespace cli {
namespace {

constexpr int64_t frame_ms = 40;
constexpr int64_t plain_ms = 1000;
constexpr size_t margin = 4;
constexpr std::array spinner = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};

double divisor_of(uint64_t bytes) {
  if (bytes >= 1'000'000'000) return 1e9;
  if (bytes >= 1'000'000) return 1e6;
  return 1e3;
}

size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

uint64_t count_of(const nlohmann::json& line, const char* key) {
  return static_cast<uint64_t>(std::max<int64_t>(0, base::json_int_or(line, key, 0)));
}

}  // namespace

TransferStyle transfer_style(std::string_view wanted, bool live) {
  if (wanted == "none") return TransferStyle::None;
  if (wanted == "plain") return TransferStyle::Plain;
  if (wanted == "color") return TransferStyle::Colour;
  if (wanted == "ansi") return TransferStyle::Ansi;
  return live ? TransferStyle::Ansi : TransferStyle::Plain;
}

std::string_view unit_of(uint64_t bytes) {
  if (bytes >= 1'000'000'000) return " GB";
  return bytes >= 1'000'000 ? " MB" : " KB";
}

std::string megabytes(uint64_t bytes, uint64_t of) {
  return fmt::format("{:.1f}", static_cast<double>(bytes) / divisor_of(of));
}

void TransferView::take(const nlohmann::json& progress) {
  const std::lock_guard lock(mutex_);
  counts_ = {.blobs_done = count_of(progress, "blobs_done"),
             .blobs_total = count_of(progress, "blobs_total"),
             .bytes_done = count_of(progress, "bytes_done"),
             .bytes_total = count_of(progress, "bytes_total")};
  changed_ = true;
}

/// What does not fit goes in this order: speed, sizes, all in parentheses, time, description.
std::string TransferView::line(int64_t now_ms, size_t width) const {
  const int64_t elapsed_ms = now_ms - begun_ms_;
  const std::string time = fmt::format(" [{}s]", elapsed_ms / 1000);
  std::string share;
  std::vector<std::string> details;
  if (counts_.bytes_total > 0) {
    share = fmt::format(" {}%", counts_.bytes_done * 100 / counts_.bytes_total);
    const uint64_t speed =
        counts_.bytes_done * 1000 / static_cast<uint64_t>(std::max<int64_t>(elapsed_ms, 1));
    details = {fmt::format("{} of {} blobs", counts_.blobs_done, counts_.blobs_total),
               fmt::format("{}/{}{}", megabytes(counts_.bytes_done, counts_.bytes_total),
                           megabytes(counts_.bytes_total, counts_.bytes_total),
                           unit_of(counts_.bytes_total)),
               fmt::format("{}{}/s", megabytes(speed, speed), unit_of(speed))};
  }
  for (;; details.pop_back()) {
    const std::string inner = details.empty() ? "" : fmt::format(" ({})", fmt::join(details, ", "));
    std::string text = what_ + share + inner + time;
    if (width_of(text) <= width) return text;
    if (!details.empty()) continue;
    text = what_ + share;
    return width_of(text) <= width ? text : fit(text, width);
  }
}

std::string TransferView::draw(int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  if (style_ == TransferStyle::None) return "";
  if (style_ == TransferStyle::Plain) {
    const bool due = changed_ && now_ms - last_drawn_ms_ >= plain_ms;
    if (!due) return "";
    last_drawn_ms_ = now_ms;
    changed_ = false;
    return line(now_ms, SIZE_MAX) + "\n";
  }
  if (now_ms - last_drawn_ms_ < frame_ms) return "";
  last_drawn_ms_ = now_ms;
  drawn_ = true;
  const auto frame = static_cast<size_t>((now_ms - begun_ms_) / (2 * frame_ms)) % spinner.size();
  const size_t width = width_ > 2 * margin ? width_ - margin - 2 : margin;
  const bool colour = style_ == TransferStyle::Colour;
  return fmt::format("\r\x1b[2K{}{}{} {}", colour ? "\x1b[36m" : "", spinner[frame],
                     colour ? "\x1b[0m" : "", line(now_ms, width));
}

std::string TransferView::finish() {
  const std::lock_guard lock(mutex_);
  return drawn_ ? "\r\x1b[2K" : "";
}

}  // namespace cli
