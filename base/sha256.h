#pragma once
/// SHA-256 of streams, in the form OCI writes digests.

#include <memory>
#include <string>
#include <string_view>

namespace base {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::string_view bytes);
  /// `sha256:` and 64 lower case hexadecimal digits, of all bytes so far. Call once, at the end.
  std::string finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_of(std::string_view bytes);

}  // namespace base
