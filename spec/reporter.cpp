#include "spec/reporter.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "base/limits.h"

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
                                        .address = std::move(address),
                                        .summary = std::move(summary),
                                        .detail = std::move(detail),
                                        .suggestion = std::move(suggestion)}});
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
