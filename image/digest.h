#pragma once
/// SHA-256 digests in OCI form, and the hashing of streams.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace image {

/// `sha256:` and 64 lower case hexadecimal digits: nothing else becomes a file name.
bool is_digest(std::string_view text);
/// The digits of a digest that passed is_digest().
std::string_view digest_hex(std::string_view digest);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::string_view bytes);
  /// `sha256:…` of all bytes so far. Call once, at the end.
  std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string digest_of(std::string_view bytes);

}  // namespace image
