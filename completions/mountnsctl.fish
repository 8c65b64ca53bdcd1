# SPDX-License-Identifier: LGPL-2.1-or-later
# mountnsctl(1) for fish.
# Made by 'make completions' from mountnsd/ctl/options.py: change that, or completions/generate.py.

# Print the verb and the words after it that are no options, a line each, as far as they are before the cursor.
function __mountnsctl_words
    set -l skip 0
    set -l ended 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if test $ended = 0 -a "$word" = --
            set ended 1
        else if test $ended = 0; and string match -qr -- '^-.' $word
            contains -- $word $__mountnsctl_takes; and set skip 1
        else
            printf '%s\n' $word
        end
    end
end

# __mountnsctl_at [VERB NUMBER [more]]: the cursor is at that word of the verb (or any after it), or at the verb.
function __mountnsctl_at
    set -l words (__mountnsctl_words)
    set -l before (math (count $words) - 1)
    if test (count $argv) = 0
        test (count $words) = 0
    else if test (count $words) = 0; or test "$words[1]" != $argv[1]
        return 1
    else if test (count $argv) = 3
        test $before -ge $argv[2]
    else
        test $before = $argv[2]
    end
end

# __mountnsctl_verb [VERB...]: the verb is one of these, or there is none yet; and the command has not begun.
function __mountnsctl_verb
    set -l words (__mountnsctl_words)
    test (count $words) = 0; and return 0
    test (count $words) -gt 2; and contains -- $words[1] enter exec; and return 1
    test (count $argv) = 0; or contains -- $words[1] $argv
end

# What may be the command of enter and exec, and its words.
function __mountnsctl_command
    set -l words (__mountnsctl_words)
    complete -C (string join ' ' -- (string escape -- $words[3..-1]) (commandline -ct))
end

function __mountnsctl_namespaces
    mountnsctl --no-ask-password --no-legend --no-pager list 2>/dev/null | string replace -r ' .*' ''
end

function __mountnsctl_declared
    for file in /etc/mountnsd/namespaces/*.toml /usr/lib/mountnsd/namespaces/*.toml
        string replace -r '^.*/(.*)\.toml$' '$1' -- $file
    end
end

function __mountnsctl_units
    begin
        systemctl --no-legend --no-pager --plain --full --all list-units --type=service
        systemctl --no-legend --no-pager --full list-unit-files --type=service
    end 2>/dev/null | string replace -r ' .*' '' | string match -v '*@.service'
end

function __mountnsctl_machines
    machinectl --no-legend --no-pager list 2>/dev/null | string replace -r ' .*' ''
end

complete -c mountnsctl -f
set -g __mountnsctl_takes -H --host -M --machine --json --runtime-directory --propagation --description --label --from --owner --sort -n --lines -p --property -t --type -o --options --user -E --setenv --chdir --drop-capabilities --argv0 --sigpipe

complete -c mountnsctl -n __mountnsctl_at -a list -d 'List the namespaces (the default)'
complete -c mountnsctl -n __mountnsctl_at -a status -d 'Show how namespaces are, for people'
complete -c mountnsctl -n __mountnsctl_at -a show -d 'Show properties of namespaces, for programs'
complete -c mountnsctl -n __mountnsctl_at -a create -d 'Create a namespace'
complete -c mountnsctl -n __mountnsctl_at -a destroy -d 'Destroy one or more namespaces'
complete -c mountnsctl -n __mountnsctl_at -a monitor -d 'Show what happens to namespaces, as it happens'
complete -c mountnsctl -n __mountnsctl_at -a edit -d 'Edit the declaration of a namespace'
complete -c mountnsctl -n __mountnsctl_at -a cat -d 'Show declarations of namespaces'
complete -c mountnsctl -n __mountnsctl_at -a verify -d 'Check declarations of namespaces'
complete -c mountnsctl -n __mountnsctl_at -a mounts -d 'Show the mounts in a namespace as a tree'
complete -c mountnsctl -n __mountnsctl_at -a mount -d 'Mount in a namespace'
complete -c mountnsctl -n __mountnsctl_at -a umount -d 'Unmount in a namespace'
complete -c mountnsctl -n __mountnsctl_at -a diff -d 'Show how its mounts differ from the host'\''s, or from those of another namespace'
complete -c mountnsctl -n __mountnsctl_at -a enter -d 'Invoke a shell (or other command) in a namespace, through mountnsd'
complete -c mountnsctl -n __mountnsctl_at -a exec -d 'Move into a namespace and become a command there (root and services)'
complete -c mountnsctl -n __mountnsctl_at -a pids -d 'List the processes in a namespace'
complete -c mountnsctl -n __mountnsctl_at -a busy -d 'List what keeps a namespace besides its name'
complete -c mountnsctl -n __mountnsctl_at -a which -d 'Print which namespace a process is in'
complete -c mountnsctl -n __mountnsctl_at -a attach -d 'Have a systemd service run in a namespace'
complete -c mountnsctl -n __mountnsctl_at -a detach -d 'Undo attach'

complete -c mountnsctl -n '__mountnsctl_at status 0 more' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at show 0 more' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at create 0' -a '(__mountnsctl_declared)'
complete -c mountnsctl -n '__mountnsctl_at destroy 0 more' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at edit 0' -a '(__mountnsctl_declared)'
complete -c mountnsctl -n '__mountnsctl_at cat 0 more' -a '(__mountnsctl_declared)'
complete -c mountnsctl -n '__mountnsctl_at verify 0 more' -F
complete -c mountnsctl -n '__mountnsctl_at mounts 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at mount 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at mount 1' -F
complete -c mountnsctl -n '__mountnsctl_at mount 2' -F
complete -c mountnsctl -n '__mountnsctl_at umount 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at umount 1 more' -F
complete -c mountnsctl -n '__mountnsctl_at diff 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at diff 1' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at enter 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at enter 1 more' -a '(__mountnsctl_command)'
complete -c mountnsctl -n '__mountnsctl_at exec 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at exec 1 more' -a '(__mountnsctl_command)'
complete -c mountnsctl -n '__mountnsctl_at pids 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at busy 0' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at which 0' -a '(__fish_complete_pids)'
complete -c mountnsctl -n '__mountnsctl_at attach 0' -a '(__mountnsctl_units)'
complete -c mountnsctl -n '__mountnsctl_at attach 1' -a '(__mountnsctl_namespaces)'
complete -c mountnsctl -n '__mountnsctl_at detach 0' -a '(__mountnsctl_units)'

complete -c mountnsctl -n '__mountnsctl_verb' -s h -l help -d 'Show this help'
complete -c mountnsctl -n '__mountnsctl_verb' -l version -d 'Show package version'
complete -c mountnsctl -n '__mountnsctl_verb' -l no-pager -d 'Do not pipe output into a pager'
complete -c mountnsctl -n '__mountnsctl_verb' -l no-legend -d 'Do not show the headers and footers'
complete -c mountnsctl -n '__mountnsctl_verb' -l no-ask-password -d 'Do not ask for system passwords'
complete -c mountnsctl -n '__mountnsctl_verb' -s q -l quiet -d 'Suppress notes that are no errors'
complete -c mountnsctl -n '__mountnsctl_verb' -s H -l host -x -a '(__fish_complete_user_at_hosts)' -d 'Operate on a remote host'
complete -c mountnsctl -n '__mountnsctl_verb' -s M -l machine -x -a '(__mountnsctl_machines)' -d 'Operate on a local container'
complete -c mountnsctl -n '__mountnsctl_verb' -l json -x -a 'pretty short off' -d 'Output as JSON: pretty, short or off'
complete -c mountnsctl -n '__mountnsctl_verb' -s j -d 'Same as --json=pretty on a terminal, --json=short otherwise'
complete -c mountnsctl -n '__mountnsctl_verb' -l runtime-directory -x -a '(__fish_complete_directories)' -d 'Where the namespaces are pinned, for exec'
complete -c mountnsctl -n '__mountnsctl_verb create' -l propagation -x -a 'slave private shared unchanged' -d 'How mounts travel between host and namespace: slave, private, shared, unchanged'
complete -c mountnsctl -n '__mountnsctl_verb create' -l description -x -d 'A line that says what it is for'
complete -c mountnsctl -n '__mountnsctl_verb create list' -l label -x -d 'Add a label; with list, only namespaces that have it'
complete -c mountnsctl -n '__mountnsctl_verb create' -l from -x -a '(__mountnsctl_namespaces)' -d 'Copy that namespace instead of the host'\''s'
complete -c mountnsctl -n '__mountnsctl_verb create' -l if-not-exists -d 'Do nothing if there is one already'
complete -c mountnsctl -n '__mountnsctl_verb destroy' -l kill -d 'End the processes inside first'
complete -c mountnsctl -n '__mountnsctl_verb destroy umount' -l lazy -d 'Drop the name, or the mount, though it is in use'
complete -c mountnsctl -n '__mountnsctl_verb destroy' -l if-exists -d 'Do nothing if there is none'
complete -c mountnsctl -n '__mountnsctl_verb list' -l owner -x -a '(__fish_complete_users)' -d 'Only those of that user'
complete -c mountnsctl -n '__mountnsctl_verb list' -l sort -x -a '(__fish_append , name owner processes created)' -d 'By name, owner, processes, created; -KEY: downwards'
complete -c mountnsctl -n '__mountnsctl_verb list status' -s l -l full -d 'With all columns; with nothing left out'
complete -c mountnsctl -n '__mountnsctl_verb status' -s n -l lines -x -d 'Lines of the log'
complete -c mountnsctl -n '__mountnsctl_verb show' -s p -l property -x -d 'Only these'
complete -c mountnsctl -n '__mountnsctl_verb show' -l value -d 'Without the names'
complete -c mountnsctl -n '__mountnsctl_verb mounts' -l list -d 'As a list and not as a tree'
complete -c mountnsctl -n '__mountnsctl_verb mount' -s t -l type -x -d 'The type of the filesystem'
complete -c mountnsctl -n '__mountnsctl_verb mount' -s o -l options -x -d 'As those of mount(8)'
complete -c mountnsctl -n '__mountnsctl_verb mount' -l bind -d 'Show WHAT of the host'
complete -c mountnsctl -n '__mountnsctl_verb mount' -l rbind -d 'The same with the mounts below it'
complete -c mountnsctl -n '__mountnsctl_verb enter' -l user -x -a '(__fish_complete_users)' -d 'Enter as that user'
complete -c mountnsctl -n '__mountnsctl_verb enter exec' -s E -l setenv -x -a '(set -xn)' -d 'Add an environment variable'
complete -c mountnsctl -n '__mountnsctl_verb enter' -l chdir -x -a '(__fish_complete_directories)' -d 'Start in that directory of the namespace'
complete -c mountnsctl -n '__mountnsctl_verb exec' -l drop-capabilities -x -a '(__fish_append , CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE)' -d 'Give these up inside; by default all that a user but root needs for the way in'
complete -c mountnsctl -n '__mountnsctl_verb exec' -l argv0 -x -d 'What the command is called'
complete -c mountnsctl -n '__mountnsctl_verb exec' -l sigpipe -x -a 'ignore default' -d 'SIGPIPE for the command: ignore or default'
complete -c mountnsctl -n '__mountnsctl_verb attach' -l runtime -d 'Until the next reboot only'
complete -c mountnsctl -n '__mountnsctl_verb attach' -l without-mount-sandbox -d 'Take settings from the unit that give it mounts of its own'
complete -c mountnsctl -n '__mountnsctl_verb attach detach' -l now -d 'Restart the service if it runs'
