#include "spec/reporter.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/text.h"

namespace spec {

uint16_t Reporter::add_file(std::string path) {
  files_.push_back(std::move(path));
  return static_cast<uint16_t>(files_.size() - 1);
}

void Reporter::error(const Place& place, std::string address, std::string summary,
                     std::string detail, std::string suggestion) {
  ++errors_;
  add(Severity::Error, place, std::move(address), std::move(summary), std::move(detail),
      std::move(suggestion));
}

void Reporter::warning(const Place& place, std::string address, std::string summary,
                       std::string detail) {
  add(Severity::Warning, place, std::move(address), std::move(summary), std::move(detail), {});
}

void Reporter::note(const Place& place, std::string address, std::string summary,
                    std::string detail) {
  add(Severity::Note, place, std::move(address), std::move(summary), std::move(detail), {});
}

namespace {

/// What a file has brought along may be long: its middle is left out, between two characters, and
/// what is said about it stays.
std::string shortened(std::string text) {
  constexpr size_t half = base::limits::stack_diagnostic_bytes_max / 2;
  if (text.size() <= 2 * half) return text;
  const auto is_inside = [&](size_t at) {
    return at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;
  };
  size_t head = half;
  while (head > 0 && is_inside(head)) --head;
  size_t tail = text.size() - half;
  while (is_inside(tail)) ++tail;
  return text.substr(0, head) + "…" + text.substr(tail);
}

}  // namespace

std::string Reporter::suggest(std::string_view word, const std::vector<std::string>& known) const {
  if (cut_) return {};
  const auto nearest = base::did_you_mean(word, known);
  return nearest ? fmt::format("did you mean '{}'?", *nearest) : std::string();
}

/// A hostile file must not cost memory without end: past the bound one last line says so.
void Reporter::add(Severity severity, const Place& place, std::string address, std::string summary,
                   std::string detail, std::string suggestion) {
  if (cut_) return;
  if (entries_.size() >= base::limits::stack_diagnostics_max) {
    cut_ = true;
    ++errors_;
    severity = Severity::Error;
    address.clear();
    summary = fmt::format("more than {} problems", base::limits::stack_diagnostics_max);
    detail = "mend those above first; the others are not shown";
    suggestion.clear();
  }
  Position position{
      .file = files_.empty() ? "" : files_[place.file], .line = place.line, .column = place.column};
  entries_.push_back({place, Diagnostic{.severity = severity,
                                        .position = std::move(position),
                                        .address = shortened(std::move(address)),
                                        .summary = shortened(std::move(summary)),
                                        .detail = shortened(std::move(detail)),
                                        .suggestion = shortened(std::move(suggestion))}});
}

std::vector<Diagnostic> Reporter::take() {
  const auto order = [](const Entry& entry) {
    const Diagnostic& told = entry.diagnostic;
    return std::tie(entry.place.file, entry.place.line, entry.place.column, told.severity,
                    told.address, told.summary, told.detail);
  };
  std::stable_sort(entries_.begin(), entries_.end(),
                   [&](const Entry& a, const Entry& b) { return order(a) < order(b); });
  const auto last =
      std::unique(entries_.begin(), entries_.end(),
                  [&](const Entry& a, const Entry& b) { return order(a) == order(b); });
  entries_.erase(last, entries_.end());
  std::vector<Diagnostic> diagnostics;
  diagnostics.reserve(entries_.size());
  for (Entry& entry : entries_) diagnostics.push_back(std::move(entry.diagnostic));
  entries_.clear();
  return diagnostics;
}

std::string join_address(const std::string& address, std::string_view key) {
  return address.empty() ? std::string(key) : fmt::format("{}.{}", address, key);
}

std::string item_address(const std::string& address, size_t index) {
  return fmt::format("{}[{}]", address, index);
}

}  // namespace spec
