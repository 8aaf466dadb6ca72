#pragma once
/// Small text helpers: suggestions, escaping for terminals, splitting, random hex.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace base {

/// Levenshtein distance, letter case ignored.
size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, if it is at most two edits away and not the word itself.
std::optional<std::string> did_you_mean(std::string_view word,
                                        const std::vector<std::string>& candidates);

/// Control bytes, ESC and C1 as `\x1b`, so that names and messages cannot drive a terminal.
/// Valid UTF-8 is kept; invalid bytes are escaped too.
std::string escape_controls(std::string_view text);

/// True if `text` is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// Pieces between `separator`s; "a::b" gives an empty middle piece, "" gives one empty piece.
std::vector<std::string> split(std::string_view text, char separator);
std::string join(const std::vector<std::string>& pieces, std::string_view separator);

/// Bytes from the kernel's generator, two hex digits each.
std::string random_hex(size_t bytes);
/// A random UUID (RFC 9562 version 4), lower case.
std::string random_uuid();

/// RFC 3339 in UTC with whole seconds: `2026-11-24T00:04:41Z`.
std::string format_wall_time(int64_t nanoseconds_since_1970);

}  // namespace base
