#pragma once
/// SHA-256 of a stream on a thread of its own.

#include <string>
#include <string_view>

#include "image/digest.h"
#include "image/side_thread.h"

namespace image {

class SideHash {
 public:
  /// Hands over the next piece and returns. It must stay until settle() has returned.
  void begin(std::string_view piece) { side_.begin(piece); }
  void settle() { (void)side_.settle(); }  // hashing does not fail
  /// The digest of all pieces. Call once, at the end.
  std::string finish() {
    settle();
    return hash_.finish();
  }

 private:
  Sha256 hash_;
  SideThread side_{[this](std::string_view piece) -> base::Result<> {
    hash_.update(piece);
    return {};
  }};
};

}  // namespace image
