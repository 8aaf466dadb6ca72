/// Bytes from a guest, and bytes from a host that was replaced in mid-sentence. The first byte
/// chooses how the rest is cut into pieces: the result must not depend on it.

#include <cstdlib>
#include <string>
#include <vector>

#include "guest/protocol/greeting.h"
#include "guest/protocol/output_frame.h"

namespace {

struct Decoded {
  bool failed = false;
  std::string bytes;
  bool operator==(const Decoded&) const = default;
};

Decoded decode(std::string_view input, size_t piece) {
  guest::OutputFrameDecoder decoder;
  Decoded out;
  for (size_t at = 0; at < input.size() && !out.failed; at += piece) {
    const auto fed = decoder.feed(input.substr(at, piece), [&](const guest::OutputFrame& frame) {
      if (frame.payload.size() > guest::output_frame_payload_bytes_max) std::abort();
      out.bytes.append(frame.payload);
      return base::Result<>();
    });
    out.failed = !fed.has_value();
  }
  return out;
}

void split(std::string_view input, size_t piece) {
  guest::SessionSplitter splitter;
  size_t given = 0;
  for (size_t at = 0; at < input.size(); at += piece) {
    std::string_view rest = input.substr(at, piece);
    while (const auto next = splitter.next(rest)) {
      given += next->bytes.size();
      if (next->greeting) splitter.session_begins();
      if (given > input.size()) std::abort();
    }
    splitter.greeting_at_end();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = 1 + data[0] % 64;
  if (decode(input, piece) != decode(input, input.size())) std::abort();
  split(input, piece);
  return 0;
}
