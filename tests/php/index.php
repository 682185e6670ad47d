<?php
// A back end that reports its reading of a request's target: SECRET for /internal or below, PUBLIC
// for /public or below, OTHER otherwise. Run by: php -S HOST:PORT index.php

// Headers that some frameworks obey instead of the target.
$target = $_SERVER['HTTP_X_ORIGINAL_URL'] ?? $_SERVER['HTTP_X_REWRITE_URL'] ?? $_SERVER['REQUEST_URI'];
if ($target === '/public/headers') {
    echo json_encode($_SERVER, JSON_INVALID_UTF8_SUBSTITUTE);
    return;
}

function kind(string $path): string
{
    $kinds = ['internal' => 'SECRET', 'public' => 'PUBLIC'];
    return $kinds[strtok($path, '/')] ?? 'OTHER';
}

// By the target, and by the server's reading of it: the PATH_INFO of /index.php/internal.
$kind = kind(rawurldecode((string) parse_url($target, PHP_URL_PATH)));
$others = [kind($_SERVER['PATH_INFO'] ?? ''), kind($_SERVER['SCRIPT_NAME'])];
echo in_array('SECRET', $others, true) ? 'SECRET' : $kind;
