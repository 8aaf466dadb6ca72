#pragma once
/// The control protocol: one line of JSON each way, descriptors beside it.
///
/// A request is an object with "call"; a reply is {"ok": …} or {"error": {"code", "message"}}.
/// Lines are at most message_bytes_max long. Only the user who runs the network may connect.

#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"

namespace network {

inline constexpr size_t message_bytes_max = 256 * 1024;
inline constexpr size_t message_descriptors_max = 16;

struct Message {
  std::string text;  ///< Without the line's end.
  std::vector<base::UniqueFd> descriptors;
};

/// Sends one line, and with its first byte the descriptors. For blocking sockets; also for
/// non-blocking ones whose buffer has room, otherwise it fails.
base::Result<> send_message(int socket, std::string_view line, const std::vector<int>& descriptors);
/// Receives one line. Io if the other side closes before its end, Timeout past the deadline.
base::Result<Message> receive_message(int socket, const base::Deadline& deadline);
/// The same from a pipe, which carries no descriptors.
base::Result<std::string> receive_line(int pipe, const base::Deadline& deadline);
/// Appends what is there to `message` without waiting. True when the line is complete.
base::Result<bool> receive_some(int socket, Message& message);

/// `text` is carried as a JSON string; the second form carries a JSON value as it is.
std::string encode_success(std::string_view text);
std::string encode_success_json(std::string_view json);
std::string encode_failure(const base::Error& error);
/// The text (or JSON) of a success, or the error that was sent.
base::Result<std::string> decode_reply(std::string_view line);

}  // namespace network
