#pragma once
/// Collects the diagnostics of one run, and turns the places of nodes into positions.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spec/diagnostic.h"
#include "spec/node.h"

namespace spec {

class Reporter {
 public:
  /// The index that Places of this file carry.
  uint16_t add_file(std::string path);
  const std::string& file(uint16_t index) const { return files_[index]; }

  void error(const Place& place, std::string address, std::string summary, std::string detail = {},
             std::string suggestion = {});
  void warning(const Place& place, std::string address, std::string summary,
               std::string detail = {});
  void note(const Place& place, std::string address, std::string summary, std::string detail = {});

  /// Sorted by file (in the order they were given), line, column; exact repetitions removed.
  std::vector<Diagnostic> take();
  size_t errors() const { return errors_; }

  /// No more are kept: what only serves a better message need not be looked for.
  bool is_full() const { return cut_; }
  /// "did you mean 'x'?", or nothing.
  std::string suggest(std::string_view word, const std::vector<std::string>& known) const;

 private:
  struct Entry {
    Place place;
    Diagnostic diagnostic;
  };
  void add(Severity severity, const Place& place, std::string address, std::string summary,
           std::string detail, std::string suggestion);

  std::vector<std::string> files_;
  std::vector<Entry> entries_;
  size_t errors_ = 0;
  bool cut_ = false;
};

/// `services.web` + `image`; nothing in front of a first piece.
std::string join_address(const std::string& address, std::string_view key);
std::string item_address(const std::string& address, size_t index);

}  // namespace spec
