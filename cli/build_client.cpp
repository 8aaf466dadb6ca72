#include "cli/build_client.h"

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/deadline.h"
#include "base/json.h"
#include "cli/build_view.h"
#include "cli/console.h"
#include "cli/line_stream.h"
#include "cli/transfer.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

int64_t now_ms() { return base::boottime_ns() / 1'000'000; }

ProgressStyle style_of(BuildProgress progress) {
  ProgressStyle style = progress_style();
  if (progress == BuildProgress::Plain) style.live = false;
  if (progress == BuildProgress::Tty) style.live = true;
  return style;
}

/// Takes the lines of the answer.
class BuildReader {
 public:
  BuildReader(const Context& context, const BuildCall& call)
      : context_(context), call_(call), view_(style_of(call.progress)) {}

  Result<> take(const std::string& text) {
    const json line = TRY_DURING(base::parse_json(text), "understand the daemon");
    const std::string type = base::json_string_or(line, "type", "");
    if (type == "file")
      return call_.files(TRY(base::decode_base64(base::json_string_or(line, "data", ""))));
    if (type == "access") return answer_access(context_, call_.parsed, line);
    if (call_.progress == BuildProgress::Json) tell(text + "\n");
    if (type == "result") result_ = line;
    if (call_.progress == BuildProgress::Json || call_.progress == BuildProgress::Quiet) return {};
    const auto id = static_cast<uint32_t>(base::json_int_or(line, "id", 0));
    if (type == "started")
      tell(view_.started(id, base::json_string_or(line, "name", ""), now_ms()));
    else if (type == "output")
      tell(view_.output(id, TRY(base::decode_base64(base::json_string_or(line, "data", ""))),
                        now_ms()));
    else if (type == "ended")
      tell(view_.ended(id, base::json_bool_or(line, "cached", false),
                       base::json_bool_or(line, "cancelled", false),
                       base::json_string_or(line, "problem", ""), now_ms()));
    else if (type == "warning")
      tell(view_.warning(base::json_string_or(line, "text", "")));
    return {};
  }

  Result<json> finish() {
    tell(view_.finish(now_ms()));
    if (!result_)
      return base::fail(ErrorCode::Io,
                        "the daemon went away before the build was done; `container system "
                        "status` tells whether it runs");
    if (base::json_bool_or(*result_, "success", false)) return *result_;
    return tl::unexpected<base::Error>(
        base::Error(base::error_code_from_name(base::json_string_or(*result_, "code", "")),
                    base::json_string_or(*result_, "message", "the build failed")));
  }

 private:
  const Context& context_;
  const BuildCall& call_;
  BuildView view_;
  std::optional<json> result_;
};

}  // namespace

Result<json> run_build(const Context& context, const BuildCall& call) {
  Request request;
  request.method = "POST";
  request.target = "/v1/builds";
  request.body = call.line + "\n";
  request.body_fd = call.tar_fd;
  request.silence_ms_max = -1;  // A step takes as long as it takes; Ctrl-C ends it.
  BuildReader reader(context, call);
  LineSplitter splitter;
  const Result<> heard = context.client.stream(request, [&](std::string_view bytes) {
    return splitter.feed(bytes, [&](const std::string& line) { return reader.take(line); });
  });
  Result<json> result = reader.finish();
  if (!heard) return tl::unexpected<base::Error>(heard.error());
  return result;
}

}  // namespace cli
