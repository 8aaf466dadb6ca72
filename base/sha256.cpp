#include "base/sha256.h"

#include <array>

// These functions need none of the providers of OpenSSL, which cost a process 2 MB and some ms.
// Behind them is the same code; what is deprecated is the way in.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

namespace base {

struct Sha256::Context {
  SHA256_CTX sha{};
  Context() { ::SHA256_Init(&sha); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::string_view bytes) {
  ::SHA256_Update(&context_->sha, bytes.data(), bytes.size());
}

std::string Sha256::finish() {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> raw{};
  ::SHA256_Final(raw.data(), &context_->sha);
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text("sha256:");
  for (const unsigned char byte : raw) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string sha256_of(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace base
