# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# mountnsctl(1) for bash.
# Made by 'make completions' from mountnsd/ctl/options.py: change that, or completions/generate.py.

# Each of these prints what there is, a line each.
__mountnsctl_namespaces() {
    local name rest
    mountnsctl --no-ask-password --no-legend --no-pager list 2>/dev/null | while read -r name rest; do
        printf '%s\n' "$name"
    done
}

__mountnsctl_declared() {
    local file
    for file in /etc/mountnsd/namespaces/*.toml /usr/lib/mountnsd/namespaces/*.toml; do
        file=${file##*/}
        [[ $file == '*.toml' ]] || printf '%s\n' "${file%.toml}"
    done
}

__mountnsctl_units() {
    local name rest
    {
        systemctl --no-legend --no-pager --plain --full --all list-units --type=service
        systemctl --no-legend --no-pager --full list-unit-files --type=service
    } 2>/dev/null | while read -r name rest; do
        [[ $name == *@.service ]] || printf '%s\n' "$name"
    done | sort -u
}

__mountnsctl_machines() {
    local name rest
    machinectl --no-legend --no-pager list 2>/dev/null | while read -r name rest; do
        printf '%s\n' "$name"
    done
}

__mountnsctl_pids() {
    local directory
    for directory in /proc/[0-9]*; do
        printf '%s\n' "${directory##*/}"
    done
}

# Offer the lines of standard input that begin with $cur.  Nothing in them is expanded.
__mountnsctl_offer() {
    local line
    while read -r line; do
        [[ $line == "$cur"* ]] && COMPREPLY+=("$before$line")
    done
}

# Offer what a word of that kind may be: see Kind in completions/generate.py, or "= WORD...".
__mountnsctl_complete() {
    local word
    case $1 in
        namespace) __mountnsctl_offer < <(__mountnsctl_namespaces) ;;
        declared) __mountnsctl_offer < <(__mountnsctl_declared) ;;
        unit) __mountnsctl_offer < <(__mountnsctl_units) ;;
        machine) __mountnsctl_offer < <(__mountnsctl_machines) ;;
        pid) __mountnsctl_offer < <(__mountnsctl_pids) ;;
        user) __mountnsctl_offer < <(compgen -u) ;;
        variable) __mountnsctl_offer < <(compgen -e) ;;
        host)
            if [[ $cur == *@* ]]; then
                before+=${cur%%@*}@ cur=${cur#*@}
            fi
            __mountnsctl_offer < <(compgen -A hostname)
            ;;
        file | directory)
            compopt -o filenames 2>/dev/null
            [[ $1 == file ]] && word=-f || word=-d
            mapfile -t COMPREPLY < <(compgen "$word" -P "$before" -- "$cur")
            ;;
        '= '*)
            if [[ $cur == *,* ]]; then
                before+=${cur%,*}, cur=${cur##*,}
            fi
            for word in ${1#= }; do
                [[ $word == "$cur"* ]] && COMPREPLY+=("$before$word")
            done
            ;;
    esac
}

_mountnsctl() {
    local cur prev word general before='' verb='' ended='' i count=0 command=0
    # What each verb takes, a kind each; with a * any number of the last.
    local -A verbs=(
        [list]=""
        [status]="namespace*"
        [show]="namespace*"
        [create]="declared"
        [destroy]="namespace*"
        [monitor]=""
        [edit]="declared"
        [cat]="declared*"
        [verify]="file*"
        [mounts]="namespace"
        [mount]="namespace file file"
        [umount]="namespace file*"
        [diff]="namespace namespace"
        [enter]="namespace command*"
        [exec]="namespace command*"
        [pids]="namespace"
        [busy]="namespace"
        [which]="pid"
        [attach]="unit namespace"
        [detach]="unit"
    )
    # What the value of each option is that has one.
    local -A takes=(
        [-H]="host"
        [--host]="host"
        [-M]="machine"
        [--machine]="machine"
        [--json]="= pretty short off"
        [--runtime-directory]="directory"
        [--propagation]="= slave private shared unchanged"
        [--description]="nothing"
        [--label]="nothing"
        [--from]="namespace"
        [--owner]="user"
        [--sort]="= name owner processes created"
        [-n]="nothing"
        [--lines]="nothing"
        [-p]="nothing"
        [--property]="nothing"
        [-t]="nothing"
        [--type]="nothing"
        [-o]="nothing"
        [--options]="nothing"
        [--user]="user"
        [-E]="variable"
        [--setenv]="variable"
        [--chdir]="directory"
        [--drop-capabilities]="= CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
        [--argv0]="nothing"
        [--sigpipe]="= ignore default"
    )
    general='-h --help --version --no-pager --no-legend --no-ask-password -q --quiet -H --host= -M --machine= --json= -j --runtime-directory='
    # The options of a verb alone.
    local -A own=(
        [list]='--label= --owner= --sort= -l --full'
        [status]='-l --full -n --lines='
        [show]='-p --property= --value'
        [create]='--propagation= --description= --label= --from= --if-not-exists'
        [destroy]='--kill --lazy --if-exists'
        [mounts]='--list'
        [mount]='-t --type= -o --options= --bind --rbind'
        [umount]='--lazy'
        [enter]='--user= -E --setenv= --chdir='
        [exec]='-E --setenv= --drop-capabilities= --argv0= --sigpipe='
        [attach]='--runtime --without-mount-sandbox --now'
        [detach]='--now'
    )

    COMPREPLY=()
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    # The shell has made three words of --option=value, unless somebody told it not to.
    if [[ $cur == '=' ]]; then
        cur=
    elif [[ $prev == '=' ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    elif [[ $cur == --*=* ]]; then
        prev=${cur%%=*} before=$prev= cur=${cur#*=}
    fi

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ! $ended && $word == '--' ]]; then
            ended=1
        elif [[ ! $ended && $word == '=' ]]; then
            ((i++))
        elif [[ ! $ended && $word == -?* ]]; then
            [[ ${takes[$word]+set} && ${COMP_WORDS[i + 1]} != '=' ]] && ((i++))
        elif [[ ! $verb ]]; then
            verb=$word
        else
            ((++count))
            if [[ $count == 2 && ${verbs[$verb]} == *' command'* ]]; then
                command=$i
                break
            fi
        fi
    done
    # A word that begins the command is completed as such, and so is all after it.
    if ((command == 0 && count == 1)) && [[ $verb && ${verbs[$verb]} == *' command'* ]]; then
        [[ $ended || $cur != -* ]] && [[ $ended || ! ${prev:+${takes[$prev]+set}} ]] && command=$COMP_CWORD
    fi

    if ((command > 0)); then
        if declare -F _comp_command_offset >/dev/null; then
            _comp_command_offset "$command"
        elif declare -F _command_offset >/dev/null; then
            _command_offset "$command"
        elif ((command == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        fi
    elif [[ ! $ended && $prev && ${takes[$prev]+set} ]]; then
        __mountnsctl_complete "${takes[$prev]}"
    elif [[ ! $ended && $cur == -* ]]; then
        word=$general
        [[ $verb ]] && word+=" ${own[$verb]}" || word+=" ${own[*]}"
        mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    elif [[ ! $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${!verbs[*]}" -- "$cur")
    else
        local -a kinds
        read -r -a kinds <<<"${verbs[$verb]}"
        if ((count >= ${#kinds[@]} && ${#kinds[@]} > 0)) && [[ ${kinds[-1]} == *'*' ]]; then
            count=$((${#kinds[@]} - 1))
        fi
        word=${kinds[count]}
        __mountnsctl_complete "${word%'*'}"
    fi
}

complete -F _mountnsctl mountnsctl
