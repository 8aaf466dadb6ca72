#pragma once
/// FUSE messages as bytes: a reader that cannot run over the end, and replies.

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <linux/fuse.h>

namespace files {

/// Largest data part of one read or write; the guest is told so at INIT.
inline constexpr uint32_t data_bytes_max = 128 * 1024;
/// Largest whole request: a write with its headers.
inline constexpr uint32_t request_bytes_max = data_bytes_max + 4096;

/// The body of a request, taken apart from the front. What is missing is nullopt.
class Arguments {
 public:
  explicit Arguments(std::string_view body) : rest_(body) {}

  template <class Struct>
  std::optional<Struct> take() {
    if (rest_.size() < sizeof(Struct)) return std::nullopt;
    Struct value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }

  /// A text that ends with a NUL inside the message.
  std::optional<std::string> take_text() {
    const size_t end = rest_.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }

  /// A file name: one component, at most 255 bytes, neither `.` nor `..`.
  std::optional<std::string> take_name() {
    std::optional<std::string> name = take_text();
    constexpr size_t name_bytes_max = 255;
    const bool usable = name && !name->empty() && name->size() <= name_bytes_max && *name != "." &&
                        *name != ".." && name->find('/') == std::string::npos;
    return usable ? name : std::nullopt;
  }

  std::optional<std::string_view> take_bytes(size_t count) {
    if (rest_.size() < count) return std::nullopt;
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }

 private:
  std::string_view rest_;
};

template <class Struct>
std::string bytes_of(const Struct& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// What an operation answers: a body, or an errno.
class Reply {
 public:
  Reply() = default;
  static Reply failure(int errno_value) {
    Reply reply;
    reply.error_ = errno_value;
    return reply;
  }
  static Reply bytes(std::string body) {
    Reply reply;
    reply.body_ = std::move(body);
    return reply;
  }
  template <class Struct>
  static Reply of(const Struct& value) {
    return bytes(bytes_of(value));
  }

  int error() const { return error_; }
  const std::string& body() const { return body_; }
  /// A success with one more struct behind the body.
  template <class Struct>
  Reply followed_by(const Struct& value) const {
    return bytes(body_ + bytes_of(value));
  }
  /// The whole message for the request with this number.
  std::string message(uint64_t unique) const {
    const std::string_view body = error_ == 0 ? std::string_view(body_) : std::string_view();
    const fuse_out_header header{
        .len = static_cast<uint32_t>(sizeof(fuse_out_header) + body.size()),
        .error = -error_,
        .unique = unique};
    return bytes_of(header).append(body);
  }

 private:
  int error_ = 0;
  std::string body_;
};

}  // namespace files
