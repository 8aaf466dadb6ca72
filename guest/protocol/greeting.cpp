#include "guest/protocol/greeting.h"

#include <algorithm>
#include <charconv>

#include "guest/protocol/protocol.h"

namespace guest {
namespace {

constexpr size_t preface_bytes = 24;
constexpr size_t frame_header_bytes = 9;

static_assert(greeting_bytes_max == hello_prefix.size() + session_digits + 1 + 20 + 1);

bool is_hex_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

/// Could `text` still grow into a greeting?
bool may_become_greeting(std::string_view text) {
  if (text.size() <= hello_prefix.size()) return hello_prefix.starts_with(text);
  return text.starts_with(hello_prefix) && text.size() < greeting_bytes_max &&
         text.find('\n') == std::string_view::npos;
}

/// Length of a frame's payload from the first three bytes of its header.
uint64_t payload_bytes(std::string_view header) {
  return uint64_t{static_cast<uint8_t>(header[0])} << 16 |
         uint64_t{static_cast<uint8_t>(header[1])} << 8 | uint64_t{static_cast<uint8_t>(header[2])};
}

}  // namespace

std::string format_greeting(const Greeting& greeting) {
  return fmt::format("{}{} {}\n", hello_prefix, greeting.session, greeting.epoch);
}

std::optional<Greeting> parse_greeting(std::string_view line) {
  if (!line.starts_with(hello_prefix) || !line.ends_with('\n')) return std::nullopt;
  line.remove_prefix(hello_prefix.size());
  line.remove_suffix(1);
  if (line.size() < session_digits + 2 || line[session_digits] != ' ') return std::nullopt;
  Greeting greeting;
  greeting.session = line.substr(0, session_digits);
  if (!std::all_of(greeting.session.begin(), greeting.session.end(), is_hex_digit))
    return std::nullopt;
  const std::string_view digits = line.substr(session_digits + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), greeting.epoch);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return greeting;
}

std::optional<SessionSplitter::Piece> SessionSplitter::next(std::string_view& input) {
  while (!input.empty()) {
    std::optional<Piece> piece;
    switch (state_) {
      case State::AwaitGreeting: piece = next_awaiting(input); break;
      case State::Boundary: piece = next_boundary(input); break;
      case State::InFrame: piece = take_frame_bytes(input); break;
    }
    if (piece) return piece;
  }
  return std::nullopt;
}

/// Everything but a greeting is a remnant of an older session.
std::optional<SessionSplitter::Piece> SessionSplitter::next_awaiting(std::string_view& input) {
  held_ += input.front();
  input.remove_prefix(1);
  if (const auto greeting = parse_greeting(held_)) {
    held_.clear();
    return Piece{greeting, {}};
  }
  // A remnant may end with the first letter of the greeting: look again from each later byte.
  while (!held_.empty() && !may_become_greeting(held_)) held_.erase(0, 1);
  return std::nullopt;
}

std::optional<SessionSplitter::Piece> SessionSplitter::next_boundary(std::string_view& input) {
  held_ += input.front();
  input.remove_prefix(1);
  if (const auto greeting = parse_greeting(held_)) {
    held_.clear();
    return Piece{greeting, {}};
  }
  if (may_become_greeting(held_)) return std::nullopt;
  if (!preface_ && held_.size() < frame_header_bytes) return std::nullopt;
  frame_left_ = preface_ ? preface_bytes : frame_header_bytes + payload_bytes(held_);
  // More was held than the frame has (it began like a greeting): that is no HTTP/2, and the
  // session finds out; the count only has to stay sane.
  frame_left_ -= std::min<uint64_t>(frame_left_, held_.size());
  preface_ = false;
  state_ = frame_left_ == 0 ? State::Boundary : State::InFrame;
  remember(held_);
  given_.swap(held_);
  held_.clear();
  return Piece{std::nullopt, given_};
}

SessionSplitter::Piece SessionSplitter::take_frame_bytes(std::string_view& input) {
  const size_t count = static_cast<size_t>(std::min<uint64_t>(frame_left_, input.size()));
  const Piece piece{std::nullopt, input.substr(0, count)};
  remember(piece.bytes);
  input.remove_prefix(count);
  frame_left_ -= count;
  if (frame_left_ == 0) state_ = State::Boundary;
  return piece;
}

void SessionSplitter::remember(std::string_view bytes) {
  if (bytes.size() > greeting_bytes_max) bytes.remove_prefix(bytes.size() - greeting_bytes_max);
  tail_ += bytes;
  if (tail_.size() > greeting_bytes_max) tail_.erase(0, tail_.size() - greeting_bytes_max);
}

void SessionSplitter::expect_greeting() {
  state_ = State::AwaitGreeting;
  held_.clear();
  tail_.clear();
}

void SessionSplitter::session_begins() {
  state_ = State::Boundary;
  preface_ = true;
  held_.clear();
  tail_.clear();
}

std::optional<Greeting> SessionSplitter::greeting_at_end() const {
  if (state_ != State::InFrame) return std::nullopt;
  const size_t at = tail_.rfind(hello_prefix);
  if (at == std::string::npos) return std::nullopt;
  return parse_greeting(std::string_view(tail_).substr(at));
}

}  // namespace guest
