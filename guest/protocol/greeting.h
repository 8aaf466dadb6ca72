#pragma once
/// The line that opens a connection, and finding it in a byte stream whose beginning is unknown.
///
/// A virtio-serial port does not say reliably that the host was replaced, so a greeting may arrive
/// in the middle of a frame of the session before. It must be recognised there, and yet a user's
/// bytes on their way to some stdin, which may spell a greeting, must not be taken for one.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace guest {

inline constexpr size_t session_digits = 32;
/// Prefix, session, space, twenty digits, newline.
inline constexpr size_t greeting_bytes_max = 22 + session_digits + 1 + 20 + 1;

struct Greeting {
  std::string session;  ///< 32 lower-case hex digits.
  uint64_t epoch = 0;
  bool operator==(const Greeting&) const = default;
};

/// The whole line, with its newline.
std::string format_greeting(const Greeting& greeting);
/// Parses exactly one line, with its newline.
std::optional<Greeting> parse_greeting(std::string_view line);

/// Splits what the agent reads into greetings and the bytes of HTTP/2 sessions.
///
/// A greeting counts where an HTTP/2 frame could begin (no frame can begin with these letters: as a
/// length they exceed every limit), or anywhere while no session is running. Inside a frame it
/// counts only if nothing follows it: see `greeting_at_end`.
class SessionSplitter {
 public:
  struct Piece {
    std::optional<Greeting> greeting;  ///< Either this,
    std::string_view bytes;            ///< or bytes for the session, until the next call.
  };

  /// The next piece of `input`, from which it removes what it used; nullopt when all was used.
  std::optional<Piece> next(std::string_view& input);

  /// The host went away: nothing but a greeting is of interest from here on.
  void expect_greeting();
  /// The greeting was accepted: an HTTP/2 preface and frames follow.
  void session_begins();

  /// The greeting that the bytes so far end with, inside an unfinished frame. A host that was
  /// replaced sends it and then waits; the caller takes it for one if nothing follows for a while.
  std::optional<Greeting> greeting_at_end() const;

 private:
  enum class State { AwaitGreeting, Boundary, InFrame };

  std::optional<Piece> next_awaiting(std::string_view& input);
  std::optional<Piece> next_boundary(std::string_view& input);
  Piece take_frame_bytes(std::string_view& input);
  void remember(std::string_view bytes);

  State state_ = State::AwaitGreeting;
  bool preface_ = false;  ///< The next 24 bytes are the client's preface, not a frame.
  std::string held_;      ///< Undecided: may become a greeting or a frame header.
  std::string given_;     ///< What was held, while it is somebody's piece.
  uint64_t frame_left_ = 0;
  std::string tail_;  ///< The last greeting_bytes_max bytes of frames.
};

}  // namespace guest
