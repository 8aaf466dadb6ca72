#include "spec/decode.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace spec {
namespace {

Place place_of_offset(std::string_view text, size_t offset, uint16_t file) {
  const std::string_view before = text.substr(0, offset);
  const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0: the first line
  return {.file = file,
          .line = static_cast<uint32_t>(std::count(before.begin(), before.end(), '\n') + 1),
          .column = static_cast<uint32_t>(offset - line_start + 1)};
}

/// Length of the well-formed part at the front of `text`, found line by line.
size_t utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (!base::is_utf8(text.substr(at, end - at))) break;
    at = end;
  }
  // Within the bad line the longest good prefix ends before the byte at fault.
  while (at < text.size()) {
    size_t length = 1;
    while (length <= 4 && !base::is_utf8(text.substr(at, length))) ++length;
    if (length > 4) return at;
    at += length;
  }
  return text.size();
}

}  // namespace

bool check_bytes(std::string_view text, uint16_t file, Reporter& reporter) {
  if (text.size() > base::limits::stack_file_bytes_max) {
    reporter.error(
        {.file = file}, "", "the file is too large",
        fmt::format("a stack file has at most {} bytes", base::limits::stack_file_bytes_max));
    return false;
  }
  const auto control = std::find_if(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<uint8_t>(c);
    return (byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7F;
  });
  if (control != text.end()) {
    const auto offset = static_cast<size_t>(control - text.begin());
    reporter.error(place_of_offset(text, offset, file), "",
                   fmt::format("control byte 0x{:02x}", static_cast<uint8_t>(*control)),
                   "remove it, or write it as an escape inside double quotes");
    return false;
  }
  if (const size_t good = utf8_prefix(text); good < text.size()) {
    reporter.error(place_of_offset(text, good, file), "", "not valid UTF-8",
                   "save the file in UTF-8");
    return false;
  }
  return true;
}

bool check_key(const Node& member, Reporter& reporter) {
  if (member.key.size() <= base::limits::stack_key_bytes_max) return true;
  reporter.error(member.key_place, "", "the key is too long",
                 fmt::format("a key has at most {} bytes", base::limits::stack_key_bytes_max));
  return false;
}

void take_key_tag(Node& member) {
  for (const auto& [suffix, tag] : {std::pair{std::string_view("!reset"), MergeTag::Reset},
                                    std::pair{std::string_view("!override"), MergeTag::Override}}) {
    if (!member.key.ends_with(suffix)) continue;
    member.key.resize(member.key.size() - suffix.size());
    member.tag = tag;
  }
}

}  // namespace spec
