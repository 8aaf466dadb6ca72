#include "base/fields.h"

#include "base/text.h"

namespace base {

std::map<std::string, std::string> comma_fields(std::string_view text) {
  std::map<std::string, std::string> fields;
  for (const std::string& piece : split(text, ',')) {
    const size_t equals = piece.find('=');
    fields[piece.substr(0, equals)] = equals == std::string::npos ? "" : piece.substr(equals + 1);
  }
  return fields;
}

}  // namespace base
