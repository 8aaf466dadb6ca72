#include "image/reference.h"

#include <algorithm>

#include "base/text.h"
#include "image/digest.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;

constexpr size_t reference_bytes_max = 384;
constexpr size_t name_bytes_max = 255;
constexpr size_t tag_bytes_max = 128;
constexpr std::string_view default_domain = "docker.io";
constexpr std::string_view official_prefix = "library/";

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter_or_digit(char c) { return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z'); }

/// One component: letters and digits, joined by one dot, one or two underscores, or hyphens.
bool is_path_component(std::string_view component) {
  if (component.empty() || !is_lower_or_digit(component.front()) ||
      !is_lower_or_digit(component.back()))
    return false;
  size_t at = 0;
  while (at < component.size()) {
    const char c = component[at];
    if (is_lower_or_digit(c)) {
      ++at;
      continue;
    }
    size_t run = 0;
    while (at + run < component.size() && component[at + run] == c) ++run;
    const bool allowed = c == '-' || (c == '.' && run == 1) || (c == '_' && run <= 2);
    if (!allowed || !is_lower_or_digit(component[at + run])) return false;
    at += run;
  }
  return true;
}

bool is_host(std::string_view host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    const std::string_view inside = host.substr(1, host.size() - 2);
    return inside.find_first_not_of("0123456789abcdefABCDEF:") == std::string_view::npos;
  }
  for (const std::string& label : base::split(host, '.')) {
    if (label.empty() || label.front() == '-' || label.back() == '-') return false;
    if (!std::all_of(label.begin(), label.end(),
                     [](char c) { return is_letter_or_digit(c) || c == '-'; }))
      return false;
  }
  return true;
}

bool is_domain(std::string_view domain) {
  const size_t colon = domain.rfind(':');
  const bool has_port =
      colon != std::string_view::npos && domain.find(']', colon) == std::string_view::npos;
  if (!has_port) return is_host(domain);
  const std::string_view port = domain.substr(colon + 1);
  return !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), is_digit) &&
         is_host(domain.substr(0, colon));
}

bool is_tag(std::string_view tag) {
  if (tag.empty() || tag.size() > tag_bytes_max) return false;
  if (!is_letter_or_digit(tag.front()) && tag.front() != '_') return false;
  return std::all_of(tag.begin(), tag.end(), [](char c) {
    return is_letter_or_digit(c) || c == '_' || c == '.' || c == '-';
  });
}

/// The first component is a registry if it cannot be part of a path, as everybody reads it.
bool looks_like_domain(std::string_view first) {
  return first == "localhost" || first.find_first_of(".:[") != std::string_view::npos ||
         std::any_of(first.begin(), first.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

Result<> check_path(std::string_view path, std::string_view text) {
  for (const std::string& component : base::split(path, '/')) {
    if (is_path_component(component)) continue;
    return base::fail(ErrorCode::InvalidArgument,
                      "invalid reference '{}': '{}' may hold lower case letters and digits, "
                      "joined by '.', '_', '__' or '-'",
                      base::escape_controls(text), base::escape_controls(component));
  }
  return {};
}

/// Splits `registry/path` and fills in what is left unsaid.
Result<> read_name(std::string_view name, std::string_view text, Reference& reference) {
  const size_t slash = name.find('/');
  const bool has_domain =
      slash != std::string_view::npos && looks_like_domain(name.substr(0, slash));
  reference.domain = has_domain ? std::string(name.substr(0, slash)) : std::string(default_domain);
  reference.path = std::string(has_domain ? name.substr(slash + 1) : name);
  if (!is_domain(reference.domain))
    return base::fail(ErrorCode::InvalidArgument,
                      "invalid reference '{}': '{}' is no host name with an optional port",
                      base::escape_controls(text), base::escape_controls(reference.domain));
  TRY(check_path(reference.path, text));
  if (reference.domain == "index.docker.io") reference.domain = default_domain;
  if (reference.domain == default_domain && reference.path.find('/') == std::string::npos)
    reference.path = std::string(official_prefix) + reference.path;
  if (reference.repository().size() > name_bytes_max)
    return base::fail(ErrorCode::InvalidArgument,
                      "invalid reference: its name has more than {} "
                      "bytes",
                      name_bytes_max);
  return {};
}

}  // namespace

std::string Reference::full() const {
  return repository() + (digest.empty() ? ":" + tag : "@" + digest);
}

std::string Reference::display() const {
  std::string text = full();
  if (text.starts_with("docker.io/")) text.erase(0, default_domain.size() + 1);
  if (text.starts_with(official_prefix)) text.erase(0, official_prefix.size());
  return text;
}

Result<Reference> parse_reference(std::string_view text) {
  if (text.empty()) return base::fail(ErrorCode::InvalidArgument, "the image reference is empty");
  if (text.size() > reference_bytes_max)
    return base::fail(ErrorCode::InvalidArgument, "an image reference of more than {} bytes",
                      reference_bytes_max);
  Reference reference;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    reference.digest = std::string(rest.substr(at + 1));
    rest = rest.substr(0, at);
    if (!is_digest(reference.digest))
      return base::fail(ErrorCode::InvalidArgument,
                        "invalid reference '{}': after '@' comes sha256: and 64 lower case "
                        "hexadecimal digits",
                        base::escape_controls(text));
  }
  const size_t colon = rest.rfind(':');
  const size_t slash = rest.rfind('/');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    reference.tag = std::string(rest.substr(colon + 1));
    rest = rest.substr(0, colon);
    if (!is_tag(reference.tag))
      return base::fail(ErrorCode::InvalidArgument,
                        "invalid reference '{}': a tag has 1 to {} letters, digits, '_', '.' "
                        "and '-', and starts with none of the last two",
                        base::escape_controls(text), tag_bytes_max);
  }
  TRY(read_name(rest, text, reference));
  if (!reference.digest.empty()) reference.tag.clear();
  if (reference.digest.empty() && reference.tag.empty()) reference.tag = "latest";
  return reference;
}

}  // namespace image
