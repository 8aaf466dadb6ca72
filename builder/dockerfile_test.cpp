/// Files and what they say, written down in one line per instruction; and what is wrong with them.

#include <doctest/doctest.h>

#include "base/limits.h"
#include "base/overloaded.h"
#include "base/text.h"
#include "builder/dockerfile.h"
#include "builder/lint.h"

using namespace builder;

namespace {

std::string list(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += "<" + word + ">";
  return text;
}

std::string form(const CommandLine& line) {
  return (line.shell_form ? "shell" : "exec") + list(line.words);
}

std::string pairs(const Pairs& all) {
  std::string text;
  for (const auto& [key, value] : all) text += "<" + key + "=" + value + ">";
  return text;
}

std::string show(const Operation& operation) {
  return std::visit(
      base::overloaded{
          [](const ArgInstruction& one) {
            std::string text = "ARG ";
            for (const auto& [name, value] : one.names)
              text += "<" + name + (value ? "=" + *value : "") + ">";
            return text;
          },
          [](const EnvInstruction& one) { return "ENV " + pairs(one.pairs); },
          [](const LabelInstruction& one) { return "LABEL " + pairs(one.pairs); },
          [](const RunInstruction& one) {
            return "RUN " + form(one.command) +
                   (one.heredocs.empty() ? "" : " script " + one.heredocs[0].name);
          },
          [](const CopyInstruction& one) {
            std::string text = (one.add ? "ADD " : "COPY ") + list(one.sources);
            for (const Heredoc& heredoc : one.heredocs)
              text +=
                  " " + heredoc.name + (heredoc.expand ? "$" : "") + "<" + heredoc.content + ">";
            return text + " to <" + one.target + ">" + (one.link ? " link" : "") +
                   (one.parents ? " parents" : "") + (one.from.empty() ? "" : " from " + one.from) +
                   (one.chown.empty() ? "" : " chown " + one.chown) +
                   (one.chmod.empty() ? "" : " chmod " + one.chmod) +
                   (one.exclude.empty() ? "" : " without " + list(one.exclude));
          },
          [](const WorkdirInstruction& one) { return "WORKDIR " + one.path; },
          [](const UserInstruction& one) { return "USER " + one.user; },
          [](const CmdInstruction& one) { return "CMD " + form(one.command); },
          [](const EntrypointInstruction& one) { return "ENTRYPOINT " + form(one.command); },
          [](const ExposeInstruction& one) { return "EXPOSE " + list(one.ports); },
          [](const VolumeInstruction& one) { return "VOLUME " + list(one.paths); },
          [](const StopSignalInstruction& one) { return "STOPSIGNAL " + one.signal; },
          [](const HealthcheckInstruction& one) {
            return one.none ? std::string("HEALTHCHECK NONE")
                            : "HEALTHCHECK " + one.interval + " " + one.retries + " " +
                                  form(one.command);
          },
          [](const ShellInstruction& one) { return "SHELL " + list(one.words); },
          [](const OnbuildInstruction& one) { return "ONBUILD " + one.text; },
          [](const MaintainerInstruction& one) { return "MAINTAINER " + one.text; }},
      operation);
}

/// One line per instruction, or the errors.
std::string parse(std::string_view text) {
  const Parsed parsed = parse_dockerfile(text);
  std::string shown;
  for (const Problem& problem : parsed.problems)
    if (!problem.warning) shown += render(problem, "Dockerfile", text);
  if (!shown.empty()) return shown;
  for (const Instruction& one : parsed.file.global_arguments) shown += show(one.operation) + "\n";
  for (const Stage& stage : parsed.file.stages) {
    shown += "FROM " + stage.from.image +
             (stage.from.platform.empty() ? "" : " on " + stage.from.platform) +
             (stage.from.name.empty() ? "" : " as " + stage.from.name) + "\n";
    for (const Instruction& one : stage.instructions) shown += show(one.operation) + "\n";
  }
  return shown;
}

/// The instructions behind a FROM.
std::string body(const std::string& text) {
  const std::string shown = parse("FROM x\n" + text);
  const std::string head = "FROM x\n";
  return shown.starts_with(head) ? shown.substr(head.size()) : shown;
}

/// `line rule` of every warning.
std::string warnings(std::string_view text) {
  std::string shown;
  for (const Problem& problem : parse_dockerfile(text).problems)
    shown += fmt::format("{} {}\n", problem.location.line, problem.rule);
  return shown;
}

RunMount mount(const std::string& text) {
  const Parsed parsed = parse_dockerfile("FROM x\nRUN --mount=" + text + " true\n");
  REQUIRE(parsed.ok());
  return std::get<RunInstruction>(parsed.file.stages[0].instructions[0].operation).mounts[0];
}

}  // namespace

TEST_CASE("stages, names and arguments before them") {
  CHECK(parse("ARG V=1\nFROM --platform=$BUILDPLATFORM alpine:$V as Base\nFROM base\n") ==
        "ARG <V=1>\nFROM alpine:$V on $BUILDPLATFORM as base\nFROM base\n");
  CHECK(parse("\xEF\xBB\xBF"
              "from scratch") == "FROM scratch\n");
}

TEST_CASE("lines go on, past comments and empty lines") {
  CHECK(body("RUN a \\\n  b\n") == "RUN shell<a   b>\n");
  CHECK(body("RUN a \\  \n# comment\n   # another\n\n  b\n") == "RUN shell<a   b>\n");
  CHECK(body("RUN a\\\\\nRUN b\n") == "RUN shell<a\\\\>\nRUN shell<b>\n");
  CHECK(body("RUN a \\\r\n b\r\n") == "RUN shell<a  b>\n");
  CHECK(body("   \t RUN a\n  # comment\n") == "RUN shell<a>\n");
  CHECK(body("RUN echo # no comment\n") == "RUN shell<echo # no comment>\n");
  CHECK(body("RUN a \\\n") == "RUN shell<a>\n");
  CHECK(body("\\\nRUN a\n") == "RUN shell<a>\n");
  CHECK(body("RUN a \\\n# last") == "RUN shell<a>\n");
}

TEST_CASE("directives stand first, once, and mean nothing later") {
  CHECK(parse("# escape=`\nFROM x\nRUN a `\n b c:\\\n") == "FROM x\nRUN shell<a  b c:\\>\n");
  CHECK(parse("# comment\n# escape=`\nFROM x\nRUN a \\\n b\n") == "FROM x\nRUN shell<a  b>\n");
  CHECK(parse("\n# escape=`\nFROM x\nRUN a \\\n b\n") == "FROM x\nRUN shell<a  b>\n");
  CHECK(parse_dockerfile("#syntax = docker/dockerfile:1 \nFROM x").file.syntax ==
        "docker/dockerfile:1");
  CHECK(parse("# Escape = `\n# syntax=x\nFROM x\nRUN a `\n b\n") == "FROM x\nRUN shell<a  b>\n");
  CHECK(parse("# escape=\\\n# escape=`\nFROM x\n") ==
        "Dockerfile:2:1: error: the directive 'escape' stands here a second time; remove it\n"
        "  | # escape=`\n  | ^\n");
  CHECK(parse("# escape=x\nFROM x\n") ==
        "Dockerfile:1:1: error: the escape character is \\ or `, not 'x'\n"
        "  | # escape=x\n  | ^\n");
}

TEST_CASE("exec form, and what only looks like it") {
  CHECK(body("CMD [\"a\", \"b c\"]\n") == "CMD exec<a><b c>\n");
  CHECK(body("CMD  [ \"\\u0041\\n\" ] \n") == "CMD exec<A\n>\n");
  CHECK(body("CMD []\n") == "CMD exec\n");
  CHECK(body("CMD ['a']\n") == "CMD shell<['a']>\n");
  CHECK(body("CMD [\"a\",]\n") == "CMD shell<[\"a\",]>\n");
  CHECK(body("RUN [ -f x ] && y\n") == "RUN shell<[ -f x ] && y>\n");
  CHECK(body("CMD [\"a\"] b\n") == "CMD exec<a>\n");
  CHECK(body("CMD\n") == "CMD shell\n");
  CHECK(body("CMD [1]\n") ==
        "Dockerfile:2:5: error: a CMD in JSON form is an array of strings only\n"
        "  | CMD [1]\n  |     ^\n");
  CHECK(body("ENTRYPOINT [\"a\", [\"b\"]]\n").find("strings only") != std::string::npos);
  CHECK(body("SHELL [\"/bin/bash\", \"-c\"]\n") == "SHELL </bin/bash><-c>\n");
}

TEST_CASE("pairs, in the new form and in the old") {
  CHECK(body("ENV A=1 B=\"x y\" C='$D' E=\\ f\n") == "ENV <A=1><B=\"x y\"><C='$D'><E=\\ f>\n");
  CHECK(body("ENV A  some = value \n") == "ENV <A=some = value>\n");
  CHECK(body("LABEL \"a b\"=c d=\n") == "LABEL <\"a b\"=c><d=>\n");
  CHECK(body("ENV A\n").find("'A' has no value; write ENV A=value") != std::string::npos);
  CHECK(body("ENV A=1 B\n").find("'B' has no '='") != std::string::npos);
  CHECK(body("ENV =1\n").find("a name of ENV is empty") != std::string::npos);
  CHECK(body("ARG A B=1 C=\n") == "ARG <A><B=1><C=>\n");
}

TEST_CASE("copies with their flags") {
  CHECK(body("COPY a b /c/\n") == "COPY <a><b> to </c/>\n");
  CHECK(body("COPY [\"a b\", \"c\"]\n") == "COPY <a b> to <c>\n");
  CHECK(body("COPY --link --chown=1:2 --chmod=\"u=rwX,go=rX\" a b\n") ==
        "COPY <a> to <b> link chown 1:2 chmod u=rwX,go=rX\n");
  CHECK(body("COPY --parents --exclude=*.md --exclude=x --from=base a b\n") ==
        "COPY <a> to <b> parents from base without <*.md><x>\n");
  CHECK(body("COPY --link=false a b\n") == "COPY <a> to <b>\n");
  CHECK(body("ADD --checksum=sha256:1 https://x/y /z\n") == "ADD <https://x/y> to </z>\n");
  CHECK(body("COPY a\n").find("COPY needs a source and a target") != std::string::npos);
  CHECK(body("COPY --chwon=1 a b\n") ==
        "Dockerfile:2:6: error: COPY has no flag --chwon; did you mean --chown?\n"
        "  | COPY --chwon=1 a b\n  |      ^\n");
  CHECK(body("COPY --link --link a b\n").find("a second time") != std::string::npos);
  CHECK(body("COPY --link=2 a b\n").find("--link is true or false, not '2'") != std::string::npos);
  CHECK(body("COPY --chown a b\n").find("--chown needs a value") != std::string::npos);
  CHECK(body("COPY --from=$X a b\n").find("--from cannot hold a variable") != std::string::npos);
  CHECK(body("ENV --x A=1\n").find("ENV has no flags, but here is --x") != std::string::npos);
}

TEST_CASE("here documents are scripts, files, or a command's input") {
  CHECK(body("RUN <<EOF\necho a\n\techo b\nEOF\nRUN c\n") ==
        "RUN shell<echo a\n\techo b\n> script EOF\nRUN shell<c>\n");
  CHECK(body("RUN <<-EOF\n\techo a\n\tEOF\n") == "RUN shell<echo a\n> script EOF\n");
  CHECK(body("RUN python3 <<EOF\nprint(1)\nEOF\n") == "RUN shell<python3 <<EOF\nprint(1)\nEOF>\n");
  CHECK(body("RUN <<A cat && <<B cat\n1\nA\n2\nB\n") ==
        "RUN shell<<<A cat && <<B cat\n1\nA\n2\nB>\n");
  CHECK(body("COPY <<a <<\"b\" <<-'d' /x/\n$1\na\n2\nb\n\t3\nd\n") ==
        "COPY  a$<$1\n> b<2\n> d<3\n> to </x/>\n");
  CHECK(body("COPY one <<two /x/\n2\ntwo\n") == "COPY <one> two$<2\n> to </x/>\n");
  CHECK(body("RUN cat <<< text\n") == "RUN shell<cat <<< text>\n");
  CHECK(body("RUN echo '<<EOF'\n") == "RUN shell<echo '<<EOF'>\n");
  CHECK(body("RUN [\"cat\", \"<<EOF\"]\n") == "RUN exec<cat><<<EOF>\n");
  CHECK(body("CMD cat <<EOF\n") == "CMD shell<cat <<EOF>\n");
  CHECK(body("COPY <<EOF /x\r\na\r\nEOF\r\n") == "COPY  EOF$<a\r\n> to </x>\n");
  CHECK(body("ONBUILD RUN <<EOF\na\nEOF\n") == "ONBUILD RUN <<EOF\na\nEOF\n");
  CHECK(body("RUN <<EOF\nRUN b\n") ==
        "Dockerfile:2:5: error: the here document is not finished: there is no line 'EOF'\n"
        "  | RUN <<EOF\n  |     ^\n");
  CHECK(body("COPY a <<EOF\nEOF\n").find("cannot be a here document") != std::string::npos);
}

TEST_CASE("mounts, with their defaults") {
  CHECK(mount("type=bind,target=/x,source=a,from=base").type == RunMountType::Bind);
  CHECK(mount("target=/x").read_only);
  CHECK_FALSE(mount("target=/x,rw").read_only);
  CHECK(mount("type=cache,dst=/x").target == "/x");
  CHECK_FALSE(mount("type=cache,target=/x").mode);
  CHECK(mount("type=cache,target=/x,from=base,source=/y").source == "/y");
  CHECK(mount("type=cache,target=/x,sharing=locked,uid=5,gid=6,mode=0700").sharing ==
        CacheSharing::Locked);
  CHECK(mount("type=tmpfs,target=/x,size=1m").tmpfs_bytes == 1u << 20);
  CHECK(mount("type=secret,id=a/key").target == "/run/secrets/key");
  CHECK(mount("type=secret,target=/x/key").id == "key");
  CHECK_FALSE(mount("type=secret,id=a").mode);  // as whoever gives it says, or 0400
  CHECK(mount("type=secret,id=a,mode=0444").mode == 0444u);
  CHECK(mount("type=secret,id=a,env=KEY").target == "");
  CHECK(mount("required,type=secret,id=a").required);
  CHECK(mount("type=ssh").id == "default");
  CHECK(mount("type=ssh").mode == 0600u);
  CHECK(mount("type=cache,\\\"target=/a,b\\\"").target == "/a,b");
  const auto error = [](const std::string& text) {
    return body("RUN --mount=" + text + " true\n");
  };
  CHECK(error("type=chache,target=/x").find("did you mean cache?") != std::string::npos);
  CHECK(error("tagret=/x").find("unknown option 'tagret' in 'tagret=/x'; did you mean target?") !=
        std::string::npos);
  CHECK(
      error("type=bind,target=/x,size=1").find("'size' has no meaning for a mount of type bind") !=
      std::string::npos);
  CHECK(error("type=secret").find("a secret needs an 'id' or a 'target'") != std::string::npos);
  CHECK(error("type=cache,target=/x,mode=9").find("'mode' is an octal number") !=
        std::string::npos);
  CHECK(error("from=$X,target=/x").find("'from' cannot hold a variable") != std::string::npos);
  CHECK(error("type=cache").find("a mount of type cache needs a 'target'") != std::string::npos);
  CHECK(error("type=cache,target=/x,source=y").find("an empty cache has no 'y'") !=
        std::string::npos);
  CHECK(error("type=tmpfs,target=/x,from=base").find("a tmpfs begins empty") != std::string::npos);
}

TEST_CASE("the other instructions") {
  CHECK(body("EXPOSE 80 443/udp\n") == "EXPOSE <80><443/udp>\n");
  CHECK(body("VOLUME /a /b\nVOLUME [\"/c d\"]\n") == "VOLUME </a></b>\nVOLUME </c d>\n");
  CHECK(body("USER a b\nSTOPSIGNAL SIGINT\nWORKDIR /a b\n") ==
        "USER a b\nSTOPSIGNAL SIGINT\nWORKDIR /a b\n");
  CHECK(body("HEALTHCHECK --interval=5s --retries=3 CMD a b\n") == "HEALTHCHECK 5s 3 shell<a b>\n");
  CHECK(body("HEALTHCHECK none\n") == "HEALTHCHECK NONE\n");
  CHECK(body("HEALTHCHECK --interval=5 CMD a\n").find("--interval is a duration") !=
        std::string::npos);
  CHECK(body("HEALTHCHECK RUN a\n").find("followed by CMD or NONE, not 'RUN'") !=
        std::string::npos);
  CHECK(body("RUN --network=none --security=insecure x\n") == "RUN shell<x>\n");
  CHECK(body("RUN --network=bridge x\n").find("--network is default, none or host") !=
        std::string::npos);
  CHECK(body("ONBUILD ONBUILD RUN x\n").find("an ONBUILD of ONBUILD is not allowed") !=
        std::string::npos);
  CHECK(body("ONBUILD FROM x\n").find("FROM cannot be triggered by ONBUILD") != std::string::npos);
  CHECK(body("SHELL bash\n").find("SHELL needs the JSON form") != std::string::npos);
  CHECK(body("MAINTAINER a b\n") == "MAINTAINER a b\n");
}

TEST_CASE("all problems of a file are told in one run, each with its place") {
  CHECK(parse("FROM\nCOPPY a b\nFROM x\n  RUN --netwrok=none \\\n a\nENV A\n") ==
        "Dockerfile:1:1: error: FROM needs an image, or an image and a name: FROM image AS name\n"
        "  | FROM\n  | ^\n"
        "Dockerfile:2:1: error: unknown instruction 'COPPY'; did you mean COPY?\n"
        "  | COPPY a b\n  | ^\n"
        "Dockerfile:4:7: error: RUN has no flag --netwrok; did you mean --network?\n"
        "  |   RUN --netwrok=none \\\n  |       ^\n"
        "Dockerfile:6:5: error: 'A' has no value; write ENV A=value\n"
        "  | ENV A\n  |     ^\n");
  CHECK(parse("RUN a\n").find("RUN before the first FROM; only ARG may stand there") !=
        std::string::npos);
  CHECK(parse("") == "Dockerfile:1:1: error: the file has no instructions; it begins with FROM\n");
  CHECK(parse("ARG A\n").find("the file has no FROM") != std::string::npos);
  CHECK(parse("FROM a b\n").find("FROM needs an image") != std::string::npos);
  CHECK(parse("FROM a AS 1x\n").find("'1x' is no name for a stage") != std::string::npos);
}

TEST_CASE("a place in a continued line is that of the line it stands in") {
  CHECK(body("COPY \\\n  --chwon=1 \\\n  a b\n") ==
        "Dockerfile:3:3: error: COPY has no flag --chwon; did you mean --chown?\n"
        "  |   --chwon=1 \\\n  |   ^\n");
}

TEST_CASE("what is no Dockerfile ends soon, and a huge file is not read at all") {
  std::string noise;
  for (int i = 0; i < 10'000; ++i) noise += "\x01noise\n";
  CHECK(parse_dockerfile(noise).problems.size() <= base::limits::dockerfile_problems_max + 2);
  const std::string huge(base::limits::dockerfile_bytes_max + 1, '\n');
  CHECK(parse(huge).find("more than 4 MiB") != std::string::npos);
}

TEST_CASE("control bytes of a file never reach a terminal") {
  CHECK(parse("FROM x\n\x1b[2J a\n").find('\x1b') == std::string::npos);
}

TEST_CASE("checks have the names that users know") {
  CHECK(warnings("FROM x AS Base\n") == "1 StageNameCasing\n");
  CHECK(warnings("FROM x as base\n") == "1 FromAsCasing\n");
  CHECK(warnings("FROM x\nRUN a \\\n\n b\n") == "3 NoEmptyContinuation\n");
  CHECK(warnings("FROM x\nrun a\n") == "2 ConsistentInstructionCasing\n");
  CHECK(warnings("FROM x AS a\nFROM y AS a\n") == "2 DuplicateStageName\n");
  CHECK(warnings("FROM x AS scratch\n") == "1 ReservedStageName\n");
  CHECK(warnings("FROM x\nCMD a\n") == "2 JSONArgsRecommended\n");
  CHECK(warnings("FROM x\nSHELL [\"sh\"]\nCMD a\n") == "");
  CHECK(warnings("FROM x\nMAINTAINER a\n") == "2 MaintainerDeprecated\n");
  CHECK(warnings("FROM x\nWORKDIR a\nWORKDIR b\n") == "2 WorkdirRelativePath\n");
  CHECK(warnings("FROM x AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n") == "");
  CHECK(warnings("FROM x\nCMD [\"a\"]\nCMD [\"b\"]\n") == "2 MultipleInstructionsDisallowed\n");
  CHECK(warnings("FROM x\nENV A b\n") == "2 LegacyKeyValueFormat\n");
  CHECK(warnings("FROM x\nARG DB_PASSWORD\nENV PUBLIC_KEY=1 MONKEY=1\n") ==
        "2 SecretsUsedInArgOrEnv\n");
  CHECK(warnings("FROM --platform=$TARGETPLATFORM x\n") == "1 RedundantTargetPlatform\n");
  CHECK(warnings("FROM --platform=linux/arm64 x\n") == "1 FromPlatformFlagConstDisallowed\n");
  CHECK(warnings("FROM --platform=linux/arm64 x AS for-arm64\n") == "");
  CHECK(warnings("FROM x\nEXPOSE 80/TCP 1.2.3.4:80:80\n") ==
        "2 ExposeProtoCasing\n2 ExposeInvalidFormat\n");
}

TEST_CASE("checks can be skipped, and can be errors") {
  CHECK(warnings("# check=skip=MaintainerDeprecated\nFROM x\nMAINTAINER a\n") == "");
  CHECK(warnings("# check=skip=all\nFROM x AS B\nMAINTAINER a\n") == "");
  CHECK_FALSE(parse_dockerfile("# check=error=true\nFROM x AS B\n").ok());
  CHECK(parse_dockerfile("# check=skip=StageNameCasing;error=true\nFROM x AS B\n").ok());
  CHECK(warnings("# check=skip=MaintainerDepracated\nFROM x\n") == "1 \n");
  CHECK(parse("# check=foo=1\nFROM x\n").find("has 'skip', 'error' and 'experimental'") !=
        std::string::npos);
}

TEST_CASE("variables that nothing sets are told where the base image is known") {
  const Parsed parsed = parse_dockerfile(
      "ARG BASE=alpine\nFROM $BSE AS a\nARG NAME\nWORKDIR /$NAME/$JAVA_HOME/$NMAE\nENV X=1\n"
      "FROM a\nUSER $X$Y\nFROM unknown\nUSER $Z\n");
  REQUIRE(parsed.ok());
  const auto known = [](const FromInstruction& from) -> std::optional<std::vector<std::string>> {
    if (from.image == "unknown") return std::nullopt;
    return std::vector<std::string>{"JAVA_HOME"};
  };
  std::string shown;
  for (const Problem& problem : lint_variables(parsed.file, {known}))
    shown += fmt::format("{} {}: {}\n", problem.location.line, problem.rule, problem.message);
  CHECK(shown ==
        "2 UndefinedArgInFrom: FROM argument 'BSE' is not declared (did you mean $BASE?)\n"
        "4 UndefinedVar: Usage of undefined variable '$NMAE' (did you mean $NAME?)\n"
        "7 UndefinedVar: Usage of undefined variable '$Y'\n");
}

TEST_CASE("a default that gives no image is told") {
  const Parsed parsed = parse_dockerfile("ARG TAG\nFROM busybox:${TAG}\n");
  const auto problems = lint_variables(parsed.file, {});
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].rule == "InvalidDefaultArgInFrom");
}

TEST_CASE("a trigger is read again, with the escape of its file") {
  const Parsed parsed = parse_instruction("RUN a `\n b", '`');
  REQUIRE(parsed.ok());
  CHECK(show(parsed.file.stages[0].instructions[0].operation) == "RUN shell<a  b>");
  CHECK_FALSE(parse_instruction("FROM x", '\\').ok());
  CHECK_FALSE(parse_instruction("RUN a\nRUN b", '\\').ok());
  CHECK_FALSE(parse_instruction("", '\\').ok());
}
