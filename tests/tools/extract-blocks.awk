# Write every ```c block of a Markdown file to a file of its own, named after its line and kind.
#
#     awk -v out=FOLDER -f extract-blocks.awk README.md
#
#     12-program.c   has an `int main`: a whole program, to compile as it stands
#     40-run.c       the same with <!-- run --> before it: must also run and exit with 0
#     55-top.c       defines functions: to compile after #include "netio.h"
#     70-body.c      statements: to compile as the body of a function
#
# A block with <!-- not compiled --> before it is left out. A comment counts if only blank lines
# stand between it and the block.
{
    sub(/\r$/, "")
}
!inside && /^<!-- *not compiled *-->$/ { leave_out = 1; next }
!inside && /^<!-- *run *-->$/ { run = 1; next }
!inside && /^```c *$/ { inside = 1; first = NR + 1; text = ""; main = 0; top = 0; next }
inside && /^```/ {
    inside = 0
    kind = main ? (run ? "run" : "program") : (top ? "top" : "body")
    if (!leave_out) {
        file = sprintf("%s/%04d-%s.c", out, first, kind)
        printf "%s", text >file
        close(file)
    }
    leave_out = run = 0
    next
}
inside {
    text = text $0 "\n"
    if ($0 ~ /(^|[^A-Za-z_])main\(/ && $0 ~ /^int /) main = 1
    if ($0 ~ /^\{/) top = 1
    next
}
!/^[ \t]*$/ { leave_out = run = 0 }
